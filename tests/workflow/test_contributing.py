"""The examples in CONTRIBUTING.md are put into a copy of the project and run."""

import csv
import json
import re

import yaml
from conftest import ROOT, copy_project
from helpers import snakemake, write_folder, write_safetensors

PACKAGE = "workflow/deepspeech2"


def sections():
    """The code blocks of each section of CONTRIBUTING.md, by its heading."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return {
        part.splitlines()[0]: re.findall(r"```python\n(.*?)```", part, re.DOTALL)
        for part in text.split("\n## ")[1:]
    }


def insert(path, before, text):
    """Put `text` before the first place of `before` in a file."""
    content = path.read_text()
    assert content.count(before), before
    path.write_text(content.replace(before, text + before, 1))


def test_an_engine_a_layout_a_decoder_and_a_metric(tmp_path):
    project = copy_project(tmp_path / "checkout")
    package, examples = project / PACKAGE, sections()
    module, line = examples["A layout"]
    (package / "corpus/layouts/csv_table.py").write_text(module)
    insert(package / "corpus/layouts/__init__.py", '    "tsv":', line)
    module, line = examples["A decoder"]
    (package / "scoring/decoders/letters.py").write_text(module)
    insert(package / "scoring/decoders/__init__.py", '    "beam":', line)
    module, line = examples["An engine"]
    (package / "engines/eager_cpu.py").write_text(module)
    insert(package / "engines/__init__.py", '    "native":', line)
    metric, column = examples["A metric"]
    insert(package / "scoring/score.py", "    return result", metric)
    insert(package / "report/summary.py", '    Column("scored"', column)

    write_folder(project / "mine", ("YES", "GO ON"))
    (project / "mine/t.csv").write_text("u0.wav,YES\nu1.wav,GO ON\n")
    write_safetensors(project / "tiny.safetensors")
    content = {
        "run": {"datasets": ["mine"], "models": ["tiny"], "engines": ["plain"],
                "batch_sizes": [2], "decoders": ["letters"]},
        "datasets": {"mine": {"layout": "csv_table", "path": "mine/t.csv"}},
        "models": {"tiny": {"checkpoint": "tiny.safetensors"}},
        "engines": {"plain": {"backend": "eager_cpu"}},
        "decoders": {"letters": {"kind": "letters"}},
        "timing": {"warmup_batches": 0, "min_batches": 1, "min_seconds": 0},
    }  # fmt: skip
    (project / "own.yaml").write_text(yaml.safe_dump(content))
    snakemake(project, "--cores", 1, "--configfile", "own.yaml")
    with open(project / "results/table.tsv", newline="") as file:
        (row,) = csv.DictReader(file, delimiter="\t")
    assert row["identical_transcripts"] == row["utterances"] == "2"
    lines = (
        (project / "results/mine/tiny/plain/bs2/letters/transcripts.jsonl").read_text().splitlines()
    )
    texts = [json.loads(line)["hypothesis"] for line in lines]
    assert int(row["longest"]) == max(len(text.split()) for text in texts)
    assert not any(" " in text for text in texts)
    assert "longest" in (project / "results/table.md").read_text().splitlines()[0]
