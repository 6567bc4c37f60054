# What the rules share: the configuration, the command lines of stages, and what they are made from.
import functools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.settings.types import DeploymentMethod

WORKFLOW = Path(workflow.current_basedir).parent
sys.path.insert(0, str(WORKFLOW))

from deepspeech2 import engines, sources
from deepspeech2.cli import UserError
from deepspeech2.config import Server
from deepspeech2.configure import complete, is_address, is_made, shipped
from deepspeech2.corpus import layouts
from deepspeech2.features.parts import SAMPLE, shard_names
from deepspeech2.files import Fingerprints, remove_torn
from deepspeech2.scoring import decoders

# Another workflow may import this one: its command line and its terminal are its own.
IS_MAIN = Path(workflow.main_snakefile).parent in (WORKFLOW, WORKFLOW.parent)
try:
    CONFIG = complete(
        config,
        sys.argv if IS_MAIN else (),
        workflow.config_settings.config if IS_MAIN else {},
    )
except UserError as error:
    raise WorkflowError(str(error))

RUN, DATASETS, MODELS, ENGINES = CONFIG.run, CONFIG.datasets, CONFIG.models, CONFIG.engines


@functools.cache
def engine(name):
    """An engine, checked and completed."""
    return CONFIG.engine(name)


def lacking(names):
    """Why engines cannot run here, a line by name. Their own interpreters are asked.

    The workflow's packages are there; only a device or an optional package can be missing.
    """
    lines, asked = {}, {}
    for name in sorted(names):
        settings, python = engine(name), ENGINES[name].python
        if settings.export.source == "onnx" and not engines.is_installed("onnx"):
            lines[name] = (
                "exporting ONNX needs the package onnx where snakemake runs; "
                f"pip install -r {shipped('envs/onnxruntime.txt')}"
            )
        elif (settings.device, python, engines.create(settings).extra) != ("cpu", None, ""):
            asked.setdefault(python or sys.executable, []).append(name)
    for python, group in asked.items():
        texts = [engine(name).text() for name in group]
        command = [python, "-m", "deepspeech2.doctor", "--json", "--require", *texts]
        place = {"PYTHONPATH": str(WORKFLOW), "PYTHONSAFEPATH": "1"}
        try:
            done = subprocess.run(
                command, env={**os.environ, **place}, capture_output=True, text=True
            )
            # Libraries may have spoken before.
            said = done.stdout.splitlines()[-1:] or ["no answer"]
            found = json.loads(said[0]) if done.returncode == 0 else [_complaint(python, done)]
        except (OSError, ValueError) as error:
            found = [f"{python}: {getattr(error, 'strerror', None) or error}"]
        for name, line in zip(group, found * (len(group) if len(found) == 1 else 1)):
            lines |= {name: line} if line else {}
    return lines


def _complaint(python, done):
    """The line of what an interpreter said, or of its traceback, that says why it failed."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("error: ")]
    if lines and lines[0].startswith("Traceback"):
        lines = lines[-1:]
    if ours:
        return ours[0].removeprefix("error: ")
    return f"{python}: {lines[0] if lines else f'ended with status {done.returncode}'}"


if RUN.missing_engines == "leave_out":
    for name, line in lacking(RUN.engines).items():
        logger.warning(f"left out: engines.{name}: {line}")
        RUN.engines.remove(name)
    if not RUN.engines:
        raise WorkflowError("config: run.engines: none of them can run here")
SELECTION = {"dataset": RUN.datasets, "model": RUN.models, "engine": RUN.engines}
ROWS = {**SELECTION, "batch_size": RUN.batch_sizes, "decoder": RUN.decoders}
# Not in the jobs that a run starts, on this node or another: it has looked, and they write.
for path in remove_torn("results") if workflow.is_main_process else ():
    logger.warning(f"{path}: is empty or torn, as a power cut leaves files; it is made anew")
FINGERPRINTS = Fingerprints(Path(".snakemake") / "deepspeech2" / "fingerprints.json")
# Stages are programs of the package. They start with the interpreter that runs Snakemake, which
# need not be on the path; under conda and in containers, with theirs. (The command itself must be the
# same text wherever the project lies: Snakemake runs a job again when it changes.)
PYTHON = "python" if workflow.deployment_settings.deployment_method else sys.executable
os.environ.update(DEEPSPEECH2=str(WORKFLOW), DEEPSPEECH2_PYTHON=PYTHON)
if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:
    if not CONFIG.container:
        raise WorkflowError("config: container: --sdm apptainer needs an image; name one")


container: CONFIG.container


wildcard_constraints:
    dataset="|".join(map(re.escape, DATASETS)),
    model="|".join(map(re.escape, MODELS)),
    engine="|".join(map(re.escape, ENGINES)),
    decoder="|".join(map(re.escape, CONFIG.decoders)),
    language_model="|".join(map(re.escape, CONFIG.language_models)),
    part=rf"(/parts/({SAMPLE}|[1-9]\d*of[1-9]\d*))?",
    batch_size=r"[1-9]\d*",
    split="train|val|test|all",
    form="(static|packed)(_whole)?",
    opset=r"\d+",


OWN_PYTHON = '"$DEEPSPEECH2_PYTHON"'


def stage(name, python=OWN_PYTHON):
    """The command line of a stage: its options carry what the rule has under their names.

    Those that are `Input` or `Output` come from the rule's input and output, the others from its
    params; `Cores` are its threads. The working folder's own modules are not imported.
    """
    parts = [f'PYTHONSAFEPATH=1 PYTHONPATH="$DEEPSPEECH2" {python} -m deepspeech2.{name}']
    for option, kind in sources.options(f"deepspeech2.{name}").items():
        place = {"Input": "input", "Output": "output"}.get(
            re.sub(r"^list\[|\]$| \| None$", "", kind), "params"
        )
        value = "{threads}" if kind == "Cores" else f"{{{place}.{option}:q}}"
        several = kind.startswith(("list[", "dict["))
        parts.append(f"--{option.replace('_', '-')}{' ' if several else '='}{value}")
    return " ".join([*parts, "--log={log:q}"])


def code(*names):
    """A hash of the code of stages, which is a parameter: an edit makes their results stale."""
    return sources.digest(*(f"deepspeech2.{name}" for name in names))


def engine_code(name):
    """The same of a stage and of the engine that it runs."""
    return lambda wildcards: sources.digest(
        f"deepspeech2.{name}", engines.BACKENDS[ENGINES[wildcards.engine].backend]
    )


def contents(*paths):
    """A hash of files' contents, a parameter too: Snakemake does not see that an older file took
    the place of another. What `snakemake train` and `tune` make it sees by itself.
    """
    return FINGERPRINTS.of(path for path in paths if path and not is_made(path))


def given(path):
    """A file as an input: nothing, where there is none."""
    return local(path) if path else []


def of_dataset(key):
    """A setting of the wildcard's dataset, for params; nothing where it is null."""
    return lambda wildcards: getattr(DATASETS[wildcards.dataset], key) or []


def engine_of(wildcards):
    """The engine as its stages take it (JSON)."""
    return engine(wildcards.engine).text()


def python_of(wildcards):
    """The interpreter that runs an engine's stages, as a word of the shell's."""
    python = ENGINES[wildcards.engine].python
    return shlex.quote(python) if python else OWN_PYTHON


def alone(threads):
    """Threads of a job, or more than any machine has where its engine has a device.

    Snakemake scales those down to --cores, so that nothing else uses the device meanwhile. Of
    several devices, each job takes one that is free (engines/pool.py).
    """

    def of(wildcards):
        device = engine(wildcards.engine).device
        return threads if device == "cpu" or device.endswith(":*") else 1024

    return of


def preflight():
    """Stop before any work where an engine cannot run: its interpreter or machine lacks something."""
    planned = {job.wildcards.get("engine") for job in workflow.dag.needrun_jobs()} - {None}
    for name, line in lacking(planned).items():
        raise WorkflowError(f"engines.{name}: {line}")
    for name in {job.wildcards.get("decoder") for job in workflow.dag.needrun_jobs()} - {None}:
        decoder = decoders.decoder_class(CONFIG.decoders[name].kind)
        if decoder.needs and not engines.is_installed(decoder.needs):
            raise WorkflowError(
                f"decoders.{name}: {CONFIG.decoders[name].kind} needs {decoder.needs}; "
                f"pip install -r {shipped(f'envs/{decoder.extra}.txt')}"
            )


onstart:
    if os.path.exists("results") and not os.access("results", os.W_OK):
        raise WorkflowError("results/: cannot be written; see to its rights")
    if workflow.local_exec:  # elsewhere a stage itself says what its node lacks
        preflight()


onsuccess:
    os.sync()  # what Snakemake knows of the run, too
