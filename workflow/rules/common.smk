# What the rules share: the checked configuration, the sources behind each stage, and the targets.
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir) / "workflow"))

from deepspeech2 import backends, sources
from deepspeech2.config import complete, is_address
from deepspeech2.files import sha256
from deepspeech2.recordings import input_files
from deepspeech2.stage import UserError

try:
    complete(config, Path(workflow.basedir) / "workflow" / "schemas" / "config.schema.yaml")
except UserError as error:
    raise WorkflowError(str(error))

RUN = config["run"]
DATASETS, MODELS, ENGINES = config["datasets"], config["models"], config["engines"]


wildcard_constraints:
    dataset="|".join(map(re.escape, DATASETS)),
    model="|".join(map(re.escape, MODELS)),
    engine="|".join(map(re.escape, ENGINES)),
    batch_size=r"[1-9]\d*",
    split="train|val|test|all",
    form="static|packed",
    run=r"eager|[^/]+/bs[1-9]\d*",
    row=r"[^/]+/[^/]+/[^/]+/bs[1-9]\d*",


# Stages are command lines of the package. `.venv/bin/snakemake` runs without the environment being
# activated, so its interpreter comes first on the path; not so under conda, which brings its own.
# Modules that happen to lie in the working folder are not to be imported (from Python 3.11 on).
shell.prefix(
    f"export PYTHONSAFEPATH=1 PYTHONPATH={shlex.quote(str(Path(workflow.basedir) / 'workflow'))}; "
    + (
        ""
        if workflow.deployment_settings.deployment_method
        else f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; "
    )
)


def stage_sources(*modules):
    """The source files that a stage is made of: inputs, so that an edit makes its results stale."""
    return [os.path.relpath(path) for path in sources.of(*(f"deepspeech2.{m}" for m in modules))]


def backend_sources(stage):
    """The sources of a stage and of the backend of the engine that it runs."""

    def find(wildcards):
        backend = backends.BACKENDS[ENGINES[wildcards.engine]["backend"]]
        return stage_sources(stage, backend.module.partition(".")[2])

    return find


def of_dataset(key):
    """A setting of the wildcard's dataset, for `params`."""
    return lambda wildcards: DATASETS[wildcards.dataset][key]


def option(name, value):
    """A command-line option, or nothing where there is no value."""
    return "" if value is None else f"{name} {shlex.quote(str(value))}"


def python_of(wildcards):
    """The interpreter that runs an engine's stages."""
    return ENGINES[wildcards.engine]["python"] or "python"


def engine_options(wildcards):
    """The command-line options that describe an engine."""
    engine = ENGINES[wildcards.engine]
    options = shlex.quote(json.dumps(engine["options"], sort_keys=True))
    keys = ("backend", "device", "precision", "form", "padding")
    buckets = f"--buckets {' '.join(map(str, engine['buckets']))}" if engine["buckets"] else ""
    return " ".join(
        [f"--{key} {shlex.quote(engine[key])}" for key in keys] + [f"--options {options}", buckets]
    )


def alone(threads):
    """Threads of a job, or more than any machine has where its engine has a device.

    Snakemake scales those down to --cores, so that nothing else uses the device meanwhile.
    """
    return lambda wildcards: threads if ENGINES[wildcards.engine]["device"] == "cpu" else 1024


def preflight():
    """Stop before any work where an engine cannot run: its interpreter or machine lacks something.

    On the CPU, in the workflow's own interpreter, nothing could be missing.
    """
    planned = {job.wildcards.get("engine") for job in workflow.dag.needrun_jobs()} - {None}
    programs = {}
    for name in sorted(planned):
        engine = ENGINES[name]
        if (engine["device"], engine["python"]) != ("cpu", None):
            python = engine["python"] or sys.executable
            programs.setdefault((python, engine["backend"], engine["device"]), name)
    for (python, backend, device), name in programs.items():
        command = [python, "-m", "deepspeech2.doctor", "--require", backend, "--device", device]
        place = {"PYTHONPATH": str(Path(workflow.basedir) / "workflow"), "PYTHONSAFEPATH": "1"}
        try:
            done = subprocess.run(
                command, env={**os.environ, **place}, capture_output=True, text=True
            )
        except OSError as error:
            raise WorkflowError(f"engines.{name}.python: {python}: {error.strerror}")
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            ours = [line for line in lines if line.startswith("error: ")]
            if lines and lines[0].startswith("Traceback"):
                lines = lines[-1:]
            line = (ours or lines or [f"{python} ended with status {done.returncode}"])[0]
            raise WorkflowError(f"engines.{name}: {line.removeprefix('error: ')}")


def timing_options():
    """The command-line options of the timing stage."""
    settings = dict(config["timing"])
    governors = settings.pop("governors") or []
    options = [option(f"--{key.replace('_', '-')}", value) for key, value in settings.items()]
    return " ".join([*options, "--governors", *map(shlex.quote, governors)])


def configuration_of(wildcards):
    """What the configuration says of a row, for its record (JSON)."""
    dataset, model = wildcards.row.split("/")[:2]
    return json.dumps(
        {
            "dataset": DATASETS[dataset],
            "model": MODELS[model],
            **{key: config[key] for key in ("decoder", "accuracy", "timing")},
        },
        sort_keys=True,
    )


def corpus_source(wildcards):
    """Where a corpus comes from: the local path if there is one, else what `fetch_corpus` makes."""
    dataset = DATASETS[wildcards.dataset]
    return dataset["path"] or f"results/datasets/{wildcards.dataset}/archive"


def corpus_files(wildcards):
    """The files that a corpus is made from."""
    dataset = DATASETS[wildcards.dataset]
    if not dataset["path"]:
        return [corpus_source(wildcards)]
    try:
        return input_files(dataset["layout"], dataset["path"])
    except (UserError, OSError, ValueError):
        return [dataset["path"]]  # the stage says what is wrong with it


def corpus_inputs(wildcards):
    """Those of the files whose names Snakemake can take: it reads braces as wildcards."""
    return [file for file in corpus_files(wildcards) if "{" not in file]


def corpus_hashes(wildcards):
    """Hashes of the others, as a parameter, so that a change of them is seen too."""
    return [(file, sha256(file)) for file in corpus_files(wildcards) if "{" in file]


def checkpoint_source(wildcards):
    """A model's checkpoint: the local path, or what `fetch_checkpoint` or `random_weights` makes."""
    place = MODELS[wildcards.model]["checkpoint"]
    if place is None:
        return f"results/models/{wildcards.model}/random.safetensors"
    return f"results/models/{wildcards.model}/checkpoint" if is_address(place) else place


def random_options(wildcards):
    """The command-line options of random weights."""
    settings = dict(MODELS[wildcards.model]["random"])
    del settings["labels"]
    if settings.pop("bidirectional", True):
        settings.pop("lookahead_context", None)
    return " ".join(option(f"--{key.replace('_', '-')}", v) for key, v in settings.items())


def training_settings():
    """How to train, as the stage takes it (JSON)."""
    settings = dict(config["train"])
    for key in ("name", "dev", "device", "start", "v3_checkpoint"):
        del settings[key]
    shares = settings.pop("shares")
    settings["shares"] = {name: shares.get(name, 1.0) for name in settings.pop("datasets")}
    architecture = dict(settings["architecture"])
    if architecture["bidirectional"]:
        del architecture["lookahead_context"]
    return json.dumps({**settings, "architecture": architecture}, sort_keys=True)


def training_start():
    """The files of the model that a training starts from."""
    name = config["train"]["start"]
    if name is None:
        return []
    base, texts = f"results/models/{name}/model", MODELS[name]["training_texts"]
    return [f"{base}.safetensors", f"{base}.json"] + ([texts] if texts else [])


def start_options():
    """The command-line options for them."""
    if config["train"]["start"] is None:
        return ""
    weights, model, *texts = training_start()
    start = [f"--start {shlex.quote(weights)} {shlex.quote(model)}"]
    return " ".join(start + [option("--start-texts", path) for path in texts])


def training_manifests(part):
    """The manifests of the datasets to train on (train) or to choose by (val), as name=path."""
    names = config["train"]["datasets" if part == "train" else "dev"]
    return [f"{name}=results/datasets/{name}/{name}_{part}_manifest.json" for name in names]


def exported_model(wildcards):
    """The export of the model that an engine starts from, and its index."""
    paths = [f"results/models/{wildcards.model}/{name}" for name in export_of(wildcards.engine)]
    return dict(zip(("source", "source_index"), paths))


def export_of(name):
    """File and index, in the model's folder, of what an engine starts from.

    A trace is the engine's own if it has its own interpreter: one that another version of torch
    wrote may not load there.
    """
    engine = ENGINES[name]
    settings = {key: engine[key] for key in backends.Engine._fields}
    if backends.create(backends.Engine(**settings)).source == "weights":
        return "model.safetensors", "model.json"
    form = engine["form"]
    stem = f"torchscript_{form}" if engine["python"] is None else f"{name}/{form}"
    return f"{stem}.pt", f"{stem}.json"


def splits(dataset):
    """The splits of a dataset that get a manifest."""
    parts = ["train", "val", "test"] if DATASETS[dataset]["layout"] == "an4" else []
    split = DATASETS[dataset]["split"]
    return parts + ([split] if split not in parts else [])


def manifest_of(wildcards):
    """The manifest of the split that a dataset runs on."""
    split = DATASETS[wildcards.dataset]["split"]
    return f"results/datasets/{wildcards.dataset}/{wildcards.dataset}_{split}_manifest.json"


def run_manifests():
    """The manifest that each selected dataset runs on."""
    return {
        name: f"results/datasets/{name}/{name}_{DATASETS[name]['split']}_manifest.json"
        for name in RUN["datasets"]
    }


def manifests():
    """All manifests of the selected datasets."""
    return [
        f"results/datasets/{dataset}/{dataset}_{split}_manifest.json"
        for dataset in RUN["datasets"]
        for split in splits(dataset)
    ]


def features():
    """Indexes and folders of the features of every selected dataset and model."""
    pattern = "results/{dataset}/{model}/features{suffix}"
    return expand(pattern, dataset=RUN["datasets"], model=RUN["models"], suffix=["", ".json"])


def exports():
    """Weights and both traces of every selected model, with their indexes."""
    names = ["model.safetensors", "model.json"]
    names += [
        f"torchscript_{form}.{end}" for form in ("static", "packed") for end in ("pt", "json")
    ]
    return expand("results/models/{model}/{name}", model=RUN["models"], name=names)


def eager_transcripts():
    """Transcripts of the eager reference, of every selected dataset and model."""
    pattern = "results/{dataset}/{model}/eager/transcripts.jsonl"
    return expand(pattern, dataset=RUN["datasets"], model=RUN["models"])


def rows():
    """The rows of the table: dataset/model/engine/bs<batch size>."""
    return expand(
        "{dataset}/{model}/{engine}/bs{batch_size}",
        dataset=RUN["datasets"],
        model=RUN["models"],
        engine=RUN["engines"],
        batch_size=RUN["batch_sizes"],
    )


def baseline_files():
    """The baseline's records and transcripts of the selection's datasets, models and engines."""
    if config["baseline"] is None:
        return []
    folders = expand(
        "{dataset}/{model}/{engine}",
        dataset=RUN["datasets"],
        model=RUN["models"],
        engine=RUN["engines"],
    )
    return [
        str(path)
        for folder in folders
        for name in ("record.json", "transcripts.jsonl")
        for path in sorted(Path(config["baseline"], folder).glob(f"bs*/{name}"))
        if re.fullmatch("bs[1-9][0-9]*", path.parent.name)
    ]


def published():
    """Tables of published figures of the selected datasets. AN4's are of its test split."""
    tables = {name: DATASETS[name] for name in RUN["datasets"]}
    return {
        name: dataset["published"]
        for name, dataset in tables.items()
        if dataset["published"] and (dataset["layout"] != "an4" or dataset["split"] == "test")
    }


def published_options():
    """Those tables as arguments: name=path."""
    return [f"{name}={path}" for name, path in published().items()]


def intermediates():
    """Every cached file of the selection."""
    exports = {file for name in RUN["engines"] for file in export_of(name)}
    return (
        manifests()
        + features()
        + expand(
            "results/datasets/{dataset}/{file}",
            dataset=RUN["datasets"],
            file=["corpus", "corpus.json", "labels.json"],
        )
        + expand(
            "results/models/{model}/{file}",
            model=RUN["models"],
            file=sorted({"model.safetensors", "model.json", *exports}),
        )
        + expand(
            "results/{dataset}/{model}/eager/{file}",
            dataset=RUN["datasets"],
            model=RUN["models"],
            file=["posteriors.bin", "posteriors.json", "transcripts.jsonl"],
        )
        + expand(
            "results/{row}/{file}",
            row=rows(),
            file=[
                "compiled",
                "compiled.json",
                "posteriors.bin",
                "posteriors.json",
                "transcripts.jsonl",
                "score.json",
                "alignments.jsonl",
                "agreement.json",
                "timing.json",
                "record.json",
            ],
        )
        + expand(
            "results/{dataset}/{model}/{engine}/{file}",
            dataset=RUN["datasets"],
            model=RUN["models"],
            engine=RUN["engines"],
            file=["single_stream.json", "bs1/compiled", "bs1/compiled.json"],
        )
    )


onstart:
    preflight()
