"""The workflow as its users meet it: plans without anything built, bad input, the default run."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from conftest import ROOT, copy_project
from deepspeech2.files import read_sealed
from deepspeech2.model import posteriors as posteriors_file
from deepspeech2.report.rows import read_record
from helpers import (
    interpreter,
    planned,
    row_content,
    snakemake,
    tiny_description,
    write_folder,
    write_safetensors,
)

# All but the later parts of the training, which need the results of the first ones.
PRESETS = [None] + sorted(p.name for p in (ROOT / "config").glob("*[!0-9].yaml"))


@pytest.fixture
def project(tmp_path):
    return copy_project(tmp_path / "checkout")


# Presets whose corpora are here.
LOCAL = (None, "config.yaml", "engines.yaml", "noise.yaml", "server.yaml")


@pytest.mark.parametrize("preset", PRESETS)
def test_plans_need_nothing(project, preset):
    """No network, no results, no device: every preset."""
    options = ["--configfile", f"config/{preset}"] if preset else []
    jobs = planned(project, *options)
    engines = len(jobs["single_stream"])
    sizes = 6
    if preset == "engines.yaml":  # all that can run here
        assert engines >= 7
        sizes = 4
    elif preset == "noise.yaml":  # two engines on six datasets
        assert engines == 12
        sizes = 1
    elif preset == "server.yaml":
        assert engines == len(jobs["server"]) == 2
        sizes = 1
    else:
        assert engines == (2 if preset in ("ascend.yaml", "bench.yaml") else 1)  # engines, models
    assert len(jobs["timing"]) == len(jobs["record"]) == sizes * engines
    assert ("server" in jobs) == (preset == "server.yaml")
    assert len(jobs["table"]) == 1 and "dumpout_of" not in jobs
    assert ("fetch_corpus" in jobs) == (preset not in LOCAL)
    assert not (project / "results").exists()


def test_the_list_of_rules_and_their_graph_need_nothing(project):
    assert "preprocess" in snakemake(project, "--list-rules").stdout
    graph = snakemake(project, "--rulegraph", "mermaid-js").stdout
    assert "preprocess" in graph and "timing" in graph
    assert not (project / "results").exists()


def test_a_part_of_the_training_needs_the_one_before(project):
    options = ["--configfile", "config/train_2.yaml"]
    text = fails(project, "-n", *options, "--", "train")
    assert "an4-small/model.safetensors: no such file or folder; train it first" in text
    folder = project / "results/training/an4-small"
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "training_texts.txt"):
        (folder / name).write_text("text\n")
    jobs = planned(project, *options, "--", "train")
    assert {"convert", "learn", "curves"} <= set(jobs)


def test_the_manual_shows_the_graph_as_it_is(project):
    """The picture in docs/pipeline.md has the edges of Snakemake's own rule graph."""
    text = snakemake(project, "--rulegraph", "mermaid-js", "--configfile", "config/an4.yaml").stdout
    names = dict(re.findall(r"^\s*(id\d+)\[(\w+)\]", text, re.M))
    edges = re.findall(r"^\s*(id\d+) --> (id\d+)", text, re.M)
    expected = {(names[a], names[b]) for a, b in edges if names[b] != "default"}
    readme = (
        (project / "docs/pipeline.md").read_text().partition("```mermaid")[2].partition("```")[0]
    )
    assert set(re.findall(r"^\s*(\w+) --> (\w+)$", readme, re.M)) == expected


def test_lint_is_clean(project):
    assert "good condition" in snakemake(project, "--lint").stderr


def test_modules_in_the_working_folder_are_not_imported(project, tmp_path):
    """The folder may be somebody else's data: the workflow is started there with -s."""
    data = tmp_path / "data"
    configure(data)
    content = yaml.safe_load((data / "own.yaml").read_text())
    (data / "own.yaml").write_text(yaml.safe_dump(content))
    trap = f"open({str(tmp_path / 'proof')!r}, 'w')"
    for name in ("numpy", "json", "soundfile", "deepspeech2"):
        (data / f"{name}.py").write_text(trap)
    command = [Path(sys.executable).parent / "snakemake", "-s", project / "Snakefile"]
    command += ["--cores", "1", "--configfile", "own.yaml", "--", "datasets"]
    result = subprocess.run(list(map(str, command)), cwd=data, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (data / "results/datasets/own/corpus.json").exists()
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("entry", ["Snakefile", "workflow/Snakefile"])
def test_it_runs_from_any_folder(project, tmp_path, entry):
    """What the project ships is found beside it; results belong to the working folder."""
    place = tmp_path / "work place"
    place.mkdir()
    options = ["-s", project / entry]
    jobs = planned(place, *options)
    assert len(jobs["timing"]) == 6 and {"corpus", "page"} <= set(jobs)
    jobs = planned(tmp_path, "--directory", place, *options)
    assert len(jobs["timing"]) == 6
    target = "results/datasets/sample/sample_all_manifest.json"
    snakemake(place, "--cores", 1, "-s", project / entry, "--", target)
    assert (place / target).exists() and not (project / "results").exists()
    assert planned(place, "-s", project / entry, "--", target) == {}


def test_it_runs_from_a_read_only_checkout(project, tmp_path):
    """Nothing is written beside the code; as root, nothing is to be found there afterwards."""
    place = tmp_path / "place"
    place.mkdir()
    before = {path for path in project.rglob("*") if "__pycache__" not in path.parts}
    subprocess.run(["chmod", "-R", "a-w", project], check=True)
    try:
        target = "results/models/embedded/torchscript_static.pt"
        snakemake(place, "--cores", 1, "-s", project / "Snakefile", "--", target)
    finally:
        subprocess.run(["chmod", "-R", "u+w", project], check=True)
    assert (place / target).exists()
    assert {path for path in project.rglob("*") if "__pycache__" not in path.parts} == before


MODULE = """
configfile: "own.yaml"

module speech:
    snakefile: "{snakefile}"
    config: config
{prefix}

use rule * from speech as speech_*

rule top:
    default_target: True
    input:
        rules.speech_all.input,
    output:
        "top.txt",
    shell:
        "echo $PYTHONPATH > {{output}}"
"""


@pytest.mark.parametrize("prefix", ["", "speech"])
def test_it_is_a_module_of_another_workflow(project, tmp_path, monkeypatch, prefix):
    """With a prefix or without. The other workflow's own rules and terminal stay its own."""
    place = tmp_path / "host"
    write_folder(place / "recordings", ("YES", "GO ON"))
    write_safetensors(place / "tiny.safetensors")
    (place / "own.yaml").write_text(yaml.safe_dump(own_configuration()))
    line = f'    prefix: "{prefix}"' if prefix else ""
    text = MODULE.format(snakefile=project / "workflow/Snakefile", prefix=line)
    (place / "Snakefile").write_text(text)
    interpreter()
    monkeypatch.setenv("PYTHONPATH", "host")
    snakemake(place, "--cores", 2, "--show-failed-logs")
    results = place / prefix / "results"
    assert {"table.md", "report.html"} <= {path.name for path in results.iterdir()}
    assert not prefix or not (place / "results").exists()
    assert (place / "top.txt").read_text() == "host\n"
    assert planned(place) == {}


def own_configuration():
    """A small run on recordings and a checkpoint of the test's own."""
    return {
        "run": {"datasets": ["own"], "models": ["tiny"], "engines": ["cpu-fp32"],
                "batch_sizes": [1]},
        "datasets": {"own": {"layout": "folder", "path": "recordings"}},
        "models": {"tiny": {"checkpoint": "tiny.safetensors"}},
        "timing": {"warmup_batches": 0, "min_batches": 1, "min_seconds": 0},
    }  # fmt: skip


def test_a_run_is_a_short_account(project):
    """A line for each job with stage, row, progress and time left; the log file has everything."""
    options = configure(project)
    target = "results/own/tiny/cpu-fp32/bs1/greedy/transcripts.jsonl"
    result = snakemake(project, *options, "--", target)
    lines = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()]
    assert len(lines) < 20, lines
    jobs = [line for line in lines if re.match(r"\s*\d+ %", line)]
    assert len(jobs) == 9 and jobs[-1].startswith("100 %, 8 jobs done")
    assert re.fullmatch(r" +\d+ %, \d+ s left +infer own/tiny/cpu-fp32/1", jobs[-3])
    (log,) = (project / ".snakemake/log").glob("*.log")
    text = log.read_text()
    assert "input: results/own/tiny/features" in text and "8 of 8 steps (100%) done" in text
    assert "rule infer:" in snakemake(project, "-n", *options, "-F", "--", target).stdout


def test_commands_carry_what_their_rules_have(project):
    """Every rule's command line can be formatted: names of stage and rule agree."""
    (project / "ours").mkdir()
    (project / "theirs").mkdir()
    random = {"random": {"hidden_size": 8}}
    address = {"checkpoint": "http://127.0.0.1:9/x.ckpt"}
    run = {"datasets": ["own"], "models": ["tiny", "made", "far"], "batch_sizes": [2]}
    run["decoders"] = ["greedy", "beam-word3"]
    engine = {"backend": "torchscript", "python": sys.executable}
    models = {"tiny": {"checkpoint": "tiny.safetensors"}, "made": random, "far": address}
    options = configure(
        project, run={**run, "engines": ["other", "cpu-bf16", "ort-fp32", "om"]}, models=models,
        engines={"other": engine, "om": {"backend": "acl_om"}}, baseline="theirs",
        train={"name": "x", "datasets": ["own"], "dev": ["own"], "start": "tiny"},
        decoders={"beam-word3": {"tuning": "results/tuning/beam-word3.json"}},
        tune={"decoder": "beam-word3", "dataset": "held", "model": "tiny", "grid": {"beta": [1]}},
    )  # fmt: skip
    targets = ["all", "dumpout", "trn", "compare", "gate", "train", "bench", "export", "engines"]
    targets += ["tune", "ctm", "submission"]
    (project / "a.zip").write_text("")
    jobs = planned(project, *options, "-p", "--", *targets)
    jobs.update(planned(project, "-p", "--configfile", "config/an4.yaml", "--", "datasets"))
    shards = ("--config", "datasets={sample: {shards: 2}}")
    jobs.update(planned(project, "-p", *shards))
    jobs.update(planned(project, "-p", "--configfile", "config/server.yaml"))
    jobs.update(planned(project, "-p", "--config", "boards=[a.zip]", "--", "board"))
    texts = "".join(path.read_text() for path in (project / "workflow/rules").glob("*.smk"))
    rules = set(re.findall(r"^(?:use rule \w+ as|rule) (\w+)", texts, re.M))
    targets = {"all", "datasets", "features", "gate", *targets} - {"compare", "submission"}
    assert set(jobs) == rules - targets


def configure(project, dataset=None, model=None, **more):
    """Options for a small run on a dataset and a model of the test's own."""
    write_folder(project / "recordings")
    write_safetensors(project / "tiny.safetensors")
    content = own_configuration()
    content["datasets"]["own"] = dataset or content["datasets"]["own"]
    content["models"]["tiny"] = model or content["models"]["tiny"]
    content["datasets"]["held"] = {**content["datasets"]["own"], "split": "val"}
    content.update(more)
    (project / "own.yaml").write_text(yaml.safe_dump(content))
    return ["--cores", 1, "--configfile", "own.yaml"]


def fails(project, *arguments):
    """The text of a run that must fail."""
    result = snakemake(project, *arguments, check=False)
    assert result.returncode != 0
    assert "Traceback" not in result.stdout + result.stderr
    return result.stdout + result.stderr


def error_line(text):
    found = [line for line in text.splitlines() if line.startswith("error: ")]
    assert found, text
    return found[0]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("batch_size=4", "config: batch_size: unknown key"),
        ("run={batch_sizes: [x]}", "run.batch_sizes[0]: 'x': must be a valid integer"),
        ("run={engines: [npu]}", "run.engines: 'npu' is not defined"),
        ("archive=absent.tar.gz", "absent.tar.gz: no such file"),
        ("checkpoint=absent.ckpt", "absent.ckpt: no such file"),
    ],
)
def test_bad_configuration_stops_before_any_work(project, option, words):
    text = fails(project, "-n", "--config", option)
    assert sum(words in line for line in text.splitlines()) == 1
    assert len(text.strip().splitlines()) <= 8
    assert not (project / "results").exists()


def test_unreachable_mirrors_are_all_named(project, monkeypatch):
    urls = ["http://127.0.0.1:9/an4.tar.gz", "http://127.0.0.1:9/other.tar.gz"]
    options = configure(project, {"layout": "an4", "split": "test", "urls": urls})
    assert "fetch_corpus" in planned(project, *options)
    line = error_line(fails(project, *options, "--", "results/datasets/own/corpus.json"))
    assert all(url in line for url in urls) and "archive=PATH" in line
    assert not list((project / "results/datasets/own").glob("archive*"))
    log = (project / "results/logs/datasets/own/fetch.log").read_text()
    assert log.splitlines()[-1] == line


def test_a_damaged_archive(project):
    (project / "a.tar.gz").write_bytes(b"\x1f\x8b damaged")
    options = configure(project, {"layout": "an4", "split": "test", "path": "a.tar.gz"})
    assert "a.tar.gz: " in error_line(fails(project, *options))
    assert not (project / "results/datasets").exists() or not list(
        (project / "results/datasets/own").glob("*")
    )


def test_bad_audio_and_text_stop_the_run_and_a_rerun_continues(project):
    options = configure(project)
    wav, txt = project / "recordings/u1.wav", project / "recordings/u1.txt"
    good = wav.read_bytes()
    soundfile.write(wav, np.zeros(16000), 16000)
    assert "u1.wav: holds only digital silence" in error_line(fails(project, *options))
    wav.write_bytes(good)
    txt.write_text("GÖ")
    line = error_line(fails(project, *options))
    assert "u1.txt" in line and "'Ö'" in line
    assert (project / "results/datasets/own/corpus.json").exists()
    assert not (project / "results/own/tiny/features").exists()
    txt.write_text("GO")
    snakemake(project, *options, "--", "features")
    assert (
        len(json.loads((project / "results/own/tiny/features.json").read_text())["utterances"]) == 3
    )


def test_a_bad_checkpoint_stops_the_run(project):
    options = configure(project, model={"checkpoint": "own.yaml"})
    line = error_line(fails(project, *options))
    assert "own.yaml: neither a torch checkpoint nor safetensors" in line
    blank, *labels = tiny_description()["labels"]
    description = {**tiny_description(), "labels": [blank, *labels[::-1]]}
    write_safetensors(project / "other.safetensors", description=description)
    options = configure(project, model={"checkpoint": "other.safetensors"})
    assert "labels" in error_line(fails(project, *options))
    assert not (project / "results/table.tsv").exists()


@pytest.mark.parametrize(
    ("layout", "engine", "filled"),
    [("tsv", "cpu-fp32-packed", 2), ("manifest", "cpu-fp32-trimmed", 0)],
)
def test_one_single_utterance_from_a_table_or_manifest(project, layout, engine, filled):
    folder = write_folder(project / "one", ("ONE ONLY",))
    if layout == "tsv":
        path = "one/t.tsv"
        (project / path).write_text("path\ttranscript\nu0.wav\tONE ONLY\n")
    else:
        path = "one/m.json"
        sample = {"wav_path": "u0.wav", "transcript_path": "u0.txt"}
        (project / path).write_text(json.dumps({"root_path": str(folder), "samples": [sample]}))
    options = configure(project, {"layout": layout, "path": path}, run={
        "datasets": ["own"], "models": ["tiny"], "engines": [engine],
        "batch_sizes": [3]})  # fmt: skip
    row = f"own/tiny/{engine}/bs3/greedy"
    snakemake(project, *options, "--", f"results/{row}/record.json")
    found = read_record(project / "results" / row / "record.json")
    assert found["agreement"]["utterances"] == found["agreement"]["identical_transcripts"] == 1
    assert found["offline"]["fill_up_rows"] == filled


def test_stages_run_by_another_interpreter(project):
    """An engine's `python` runs its stages; one that is missing is named."""
    options = configure(project, engines={"cpu-fp32": {"python": "/no such/python"}})
    assert "/no such/python" in fails(project, *options)
    wrapper = project / "other python"
    wrapper.write_text(f'#!/bin/sh\necho "$3" >> "{project}/used"\nexec "{sys.executable}" "$@"\n')
    wrapper.chmod(0o755)
    options = configure(project, engines={"cpu-fp32": {"python": str(wrapper)}})
    snakemake(project, *options, "--", "results/own/tiny/cpu-fp32/bs1/compiled.json")
    # It was asked whether it can run, then it exported and compiled.
    used = (project / "used").read_text().splitlines()
    assert [line.partition("=")[0] for line in used] == ["--json", "--weights", "--source"]
    assert (project / "results/models/tiny/cpu-fp32/torchscript_static.json").exists()


def test_another_precision_starts_from_the_weights(project):
    """No trace is exported that nothing reads, and the row is near the plain network's."""
    run = {"datasets": ["own"], "models": ["tiny"], "engines": ["cpu-bf16"], "batch_sizes": [2]}
    options = configure(project, run=run)
    jobs = planned(project, *options)
    assert "torchscript" not in jobs and len(jobs["compile"]) == 2  # and single_stream's
    snakemake(project, *options, "--", "results/own/tiny/cpu-bf16/bs2/greedy/record.json")
    found = read_record(project / "results/own/tiny/cpu-bf16/bs2/greedy/record.json")
    assert found["configuration"]["engine"]["precision"] == "bf16"
    assert 0 < found["agreement"]["largest_posterior_difference"] < 0.02
    index = project / "results/own/tiny/cpu-bf16/bs2/compiled.json"
    assert json.loads(index.read_text())["files"].keys() == {"model.pt"}


def test_without_cuda_the_run_stops_before_any_work(project):
    """And a plan needs no GPU."""
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    run = {"datasets": ["own"], "models": ["tiny"], "engines": ["cpu-fp32", "cuda-fp16"]}
    options = configure(project, run={**run, "batch_sizes": [1]})
    assert "results/own/tiny/cuda-fp16/bs1/compiled" in planned(project, *options)["compile"]
    text = fails(project, *options)
    (line,) = [line for line in text.splitlines() if "CUDA" in line]
    assert line.startswith("engines.cuda-fp16: backend torchscript cannot run: torch ")
    assert not (project / "results").exists() or not list((project / "results").glob("*/*/*"))


def test_engines_that_cannot_run_are_left_out_where_that_is_asked_for(project):
    """With a line each; the others are measured, those that start from ONNX, too."""
    for package in ("onnxruntime", "openvino"):
        pytest.importorskip(package, reason=f"needs envs/{package}.txt")
    names = ["cpu-fp32", "ort-fp32", "ov-fp32", "elsewhere", "npu-packed", "tpu"]
    run = {"datasets": ["own"], "models": ["tiny"], "engines": names, "batch_sizes": [2]}
    own = {
        "elsewhere": {"backend": "torchscript", "python": "/no/such/python"},
        "tpu": {"backend": "onnxruntime", "device": "cuda:7"},
    }
    options = configure(project, run=run, engines=own)
    text = fails(project, *options)
    assert "engines.elsewhere: /no/such/python: No such file or directory" in text
    options = configure(project, run={**run, "missing_engines": "leave_out"}, engines=own)
    done = snakemake(project, "--cores", 1, *options, "--", "engines")
    left = re.findall(r"left out: engines\.(\S+): (.*)", done.stderr)
    assert {name for name, _ in left} == {"elsewhere", "npu-packed", "tpu"}
    assert "No such file" in dict(left)["elsewhere"] and "no provider cuda" in dict(left)["tpu"]
    with open(project / "results/table.tsv", newline="") as file:
        rows = {row["engine"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert list(rows) == names[:3]
    for row in rows.values():
        assert row["identical_transcripts"] == row["utterances"] == "3"
        assert float(row["largest_posterior_difference"]) <= 1e-6
    index = json.loads((project / "results/own/tiny/ort-fp32/bs2/compiled.json").read_text())
    assert index["versions"].keys() == {"onnxruntime"} and index["notes"] == {}
    options = configure(project, run={**run, "engines": ["tpu"], "missing_engines": "leave_out"},
                        engines=own)  # fmt: skip
    assert "none of them can run here" in fails(project, "-n", *options)


def test_accuracy_files_are_the_same_bytes_in_any_checkout(tmp_path):
    """Whatever the folder and the order of hashes; then the guide's text files, where asked for."""
    names = (
        "posteriors.bin posteriors.json greedy/transcripts.jsonl greedy/score.json "
        "greedy/alignments.jsonl greedy/agreement.json"
    ).split()
    row = "own/tiny/cpu-fp32/bs2"
    found = []
    for place in ("one", "another place"):
        project = copy_project(tmp_path / place)
        run = {"datasets": ["own"], "models": ["tiny"], "engines": ["cpu-fp32"]}
        model = {"checkpoint": "tiny.safetensors", "training_texts": "own.txt"}
        options = configure(project, model=model, run={**run, "batch_sizes": [2]})
        (project / "own.txt").write_text("STOP\n")
        targets = [f"results/{row}/{name}" for name in names]
        # The first in forks, whose hashes have an order of chance.
        order = {"env": {**os.environ, "PYTHONHASHSEED": "1"}} if found else {}
        snakemake(project, *options, "--", *targets, **order)
        found.append({path: (project / path).read_bytes() for path in targets})
    assert found[0] == found[1]
    score = json.loads(found[0][f"results/{row}/greedy/score.json"])
    assert {p["name"]: p["utterances"] for p in score["parts"]["seen"]} == {
        "seen in training": 1, "unseen": 2
    }  # fmt: skip
    snakemake(project, *options, "--", "dumpout")
    folder = project / "results" / row
    kept = posteriors_file.read(folder / "posteriors.bin", folder / "posteriors.json")
    for number, (_, rows) in enumerate(kept, 1):
        text = np.loadtxt(folder / f"dumpout/data{number}_0.txt", dtype=np.float32)
        assert text[: len(rows)].tobytes() == rows.tobytes()
    assert len(list((folder / "dumpout").glob("data*_[01].txt"))) == 2 * 3
    assert planned(project, *options, "--", "dumpout") == {}
    assert not (folder / "timing.json").exists()


def test_each_decoder_has_a_row_of_its_own(project):
    """With a language model that is built in the run, on the same posteriors."""
    pytest.importorskip("flashlight", reason="needs envs/beam.txt")
    (project / "lm.txt").write_text("GO ON\nYES\nSTOP\n")
    run = {"datasets": ["own"], "models": ["tiny"], "engines": ["cpu-fp32"], "batch_sizes": [2]}
    options = configure(
        project,
        run={**run, "decoders": ["greedy", "b"]},
        decoders={"b": {"kind": "beam", "language_model": "own", "options": {"alpha": 1.0}}},
        language_models={"own": {"texts": ["lm.txt"], "order": 3}},
    )
    snakemake(project, *options)
    with open(project / "results/table.tsv", newline="") as file:
        greedy, beam = csv.DictReader(file, delimiter="\t")
    assert (greedy["decoder"], beam["decoder"]) == ("greedy", "b")
    assert greedy["utterances_per_s"] == beam["utterances_per_s"]
    assert float(beam["decode_ms"]) > float(greedy["decode_ms"]) > 0
    assert beam["identical_transcripts"] == beam["utterances"]  # as eager, by the same decoder
    with open(project / "results/tables/decoders.tsv", newline="") as file:
        (line,) = csv.DictReader(file, delimiter="\t")
    assert (line["decoder"], line["against"]) == ("b", "greedy")
    used = read_record(project / "results/own/tiny/cpu-fp32/bs2/b/record.json")["configuration"]
    assert used["decoder"]["language_model"]["unit"] == "character"
    assert planned(project, *options) == {}
    (project / "lm.txt").write_text("GO ON\n")
    jobs = planned(project, *options)
    assert {"language_model", "decode", "score"} <= set(jobs) and "infer" not in jobs


def test_the_default_run(project):
    """From an installed environment to the table, offline, as `make` does it."""
    snakemake(project, "--cores", 2, env=os.environ)
    with open(project / "results/table.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [int(r["batch_size"]) for r in rows] == [1, 4, 8, 16, 32, 64]
    for row in rows:
        assert row["verdict"] == "QUICK" and row["threads"] == "2"
        assert row["utterances"] == "64" == row["identical_transcripts"]
        assert float(row["utterances_per_s"]) > 0 and float(row["rtfx"]) > 0
        assert {row[k] for k in ("wer", "cer")} == {rows[0][k] for k in ("wer", "cer")}
        assert float(row["wer"]) <= 5  # what the embedded model has to reach
        stream = [float(row[f"stream_{name}_ms"]) for name in ("p50", "p90", "p95", "mean")]
        assert 0 < stream[0] <= stream[1] <= stream[2] and stream[3] > 0
        assert row["stream_verdict"] == "QUICK"
        assert (row["scored"], row["of"]) == ("64", "64") and float(row["ser"]) > 0
        assert 0 < int(row["unseen_utterances"]) <= 64 and float(row["wer_unseen"]) > 0
        assert float(row["largest_posterior_difference"]) < 1e-5
        assert float(row["padding_share"]) == float(row["padding_share_batch"])
        assert float(row["padding_share_batch"]) <= float(row["padding_share_longest"])
        # The record is what its makers write, and what the other tests take it for.
        name = f"sample/embedded/native-fp32/bs{row['batch_size']}/greedy"
        found = read_record(project / "results" / name / "record.json")
        for scenario in ("offline", "single_stream"):
            proof = found[scenario]["proof"]
            assert (proof["utterances"], proof["largest_difference"]) == (7, 0)
            assert proof["outputs"] >= 7
        assert found["accuracy"]["wer"]["percent"] == pytest.approx(float(row["wer"]), abs=1e-3)
        places = {
            **{file: f"{name}/../{file}" for file in ("timing.json", "posteriors.json")},
            "../single_stream.json": "sample/embedded/native-fp32/single_stream.json",
            "decoding_time.json": "sample/embedded/eager/greedy/decoding_time.json",
        }
        for file, content in row_content().items():
            if file in ("corpus.json", "features.json"):
                continue  # not the row's own
            written = read_sealed(project / "results" / places.get(file, f"{name}/{file}"))
            assert set(written) == set(content), file
        for key in ("confusions", "coverage", "parts"):
            assert found["accuracy"][key].keys() == row_content()["score.json"][key].keys()
        expected = row_content()["timing.json"]["environment"]
        assert set(found["environment"]) == {*expected, "versions"}
        assert found["environment"]["libraries"]["torch"]
        hashes = found["hashes"]
        assert len(hashes) == 6 and all(re.fullmatch("[0-9a-f]{64}", h) for h in hashes.values())
        assert hashes["timing_code"] != hashes["accuracy_code"]
        configuration = found["configuration"]
        texts = "resources/checkpoints/training_texts.txt"
        assert configuration["model"]["training_texts"] == texts
        assert configuration["timing"]["min_seconds"] == 1
        assert set(configuration) == {
            "dataset", "model", "engine", "decoder", "accuracy", "score", "timing", "server"
        }  # fmt: skip
    assert planned(project) == {}
    # The sample is what its description says.
    audio = list((project / "resources/sample/audio").glob("*.flac"))
    assert 64 <= len(audio) <= 80 and sum(p.stat().st_size for p in audio) <= 3_000_000
    assert {soundfile.info(p).samplerate for p in audio} == {16000}


def test_training_and_random_weights_in_one_run(project):
    """What `train` makes is a model like any other; random weights have a speed and no accuracy."""
    training = {
        "name": "own", "datasets": ["own"], "dev": ["own"], "epochs": 2, "splices_from": 2,
        "precision": "fp32",
        "architecture": {"rnn_type": "gru", "hidden_size": 8, "hidden_layers": 1},
    }  # fmt: skip
    options = configure(project, train=training)
    content = yaml.safe_load((project / "own.yaml").read_text())
    content["run"]["models"] = ["random", "trained"]
    folder = "results/training/own"
    content["models"] = {
        "random": {"random": {"hidden_size": 8, "hidden_layers": 1, "seed": 5}},
        "trained": {
            "checkpoint": f"{folder}/model.safetensors",
            "training_texts": f"{folder}/training_texts.txt",
        },
    }
    (project / "own.yaml").write_text(yaml.safe_dump(content))
    assert {"learn", "curves"} <= set(planned(project, *options[2:], "--", "train"))
    snakemake(project, *options, "--", "train")
    made = {path.name for path in (project / folder).iterdir()}
    assert made == {
        "model.safetensors", "training.json", "curves.csv", "curves.svg", "training_texts.txt",
        "state",
    }  # fmt: skip
    snakemake(project, *options)
    with open(project / "results/table.tsv", newline="") as file:
        rows = {row["model"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert float(rows["trained"]["wer"]) >= 0 and rows["trained"]["note"] == ""
    random = rows["random"]
    assert random["note"] == "random weights: no accuracy" and float(random["utterances_per_s"]) > 0
    empty = "wer cer wer_low wer_high cer_low substitutions deletions insertions ser".split()
    assert {random[name] for name in empty} == {""}
    assert random["identical_transcripts"] == "3"
    table = (project / "results/table.md").read_text()
    assert "random weights: no accuracy" in table and " nan" not in table and "None" not in table
    for name in ("errors", "parts", "confusions"):
        text = (project / "results/tables" / f"{name}.tsv").read_text()
        assert "trained" in text and "random" not in text
    page = (project / "results/report.html").read_text()
    assert "own, trained" in page and "own, random" not in page
    assert planned(project, *options[2:], "--", "train") == planned(project, *options[2:]) == {}
    # Another training can go on from it.
    further = {**content, "train": {**training, "name": "further", "start": "trained"}}
    (project / "further.yaml").write_text(yaml.safe_dump(further))
    jobs = planned(project, "--configfile", "further.yaml", "--", "train")
    assert set(jobs) == {"learn", "curves"}
    # Random weights alone: there is nothing to list. Those of another seed are other weights.
    content["run"]["models"] = ["random"]
    (project / "own.yaml").write_text(yaml.safe_dump(content))
    snakemake(project, *options)
    assert "No row has an accuracy" in (project / "results/report.html").read_text()
    assert len((project / "results/tables/errors.tsv").read_text().splitlines()) == 1
    content["models"]["random"]["random"]["seed"] = 6
    (project / "own.yaml").write_text(yaml.safe_dump(content))
    assert {"random_weights", "infer", "timing"} <= set(planned(project, *options[2:]))
