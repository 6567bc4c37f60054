"""The guide's postprocess can read our files: read here by its rules, they give our rates.

Its rules: `--info_path` is the features folder, with `targets.txt` and `target_sizes.txt` beside
`sizes/`, each number followed by a space; `--out_path` is the dumpout folder, where a line is split
at single spaces and the last piece dropped. Unlike the guide's, this reader takes an utterance's
frames from `data{i}_1.txt`, and any number of lines and classes.
"""

import csv
import json
import re
import shutil
from itertools import groupby

import numpy as np
import pytest
from conftest import ROOT
from helpers import LABELS, run_corpus, run_stage

SAMPLE = ROOT / "resources" / "sample"
# The longest, short ones, an apostrophe; lost letters and lost spaces, which are no errors of CER.
RECORDINGS = (1, 4, 12, 34, 35, 40, 45, 60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of the stages on a few recordings of the sample with the embedded model."""
    folder = tmp_path_factory.mktemp("guide")
    names = {f"audio/sample-{number:03}.flac" for number in RECORDINGS}
    with open(SAMPLE / "transcripts.tsv", encoding="utf-8", newline="") as file:
        texts = {row["path"]: row["transcript"] for row in csv.DictReader(file, delimiter="\t")}
    (folder / "audio").mkdir()
    for name in names:
        shutil.copy(SAMPLE / name, folder / name)
    lines = ["path\ttranscript", *(f"{name}\t{texts[name]}" for name in sorted(names))]
    (folder / "transcripts.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def run(stage, **options):
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        done = run_stage(stage, *arguments)
        assert done.returncode == 0, done.stderr

    def at(name):
        return folder / name

    done = run_corpus("tsv", at("transcripts.tsv"), folder)
    assert done.returncode == 0, done.stderr
    run(
        "corpus.manifest", index=at("corpus.json"), corpus=at("corpus"), split="all",
        manifest=at("manifest.json"),
    )  # fmt: skip
    run(
        "model.convert", checkpoint=ROOT / "resources/checkpoints/embedded.safetensors",
        weights=at("model.safetensors"), model=at("model.json"),
    )  # fmt: skip
    run(
        "features.preprocess", manifest=at("manifest.json"), model=at("model.json"),
        labels=at("labels.json"), features=at("features"), index=at("features.json"), processes=2,
    )  # fmt: skip
    run(
        "model.torchscript", weights=at("model.safetensors"), model=at("model.json"),
        torchscript=at("model.pt"), index=at("export.json"),
    )  # fmt: skip
    engine = {"engine": "torchscript", "batch_size": 3}
    run(
        "engines.compile", source=at("model.pt"), source_index=at("export.json"),
        features_index=at("features.json"), artefact=at("artefact"), index=at("artefact.json"),
        **engine,
    )  # fmt: skip
    run(
        "engines.infer", features=at("features"), features_index=at("features.json"),
        artefact=at("artefact"), artefact_index=at("artefact.json"),
        posteriors=at("posteriors.bin"), index=at("posteriors.json"), **engine,
    )  # fmt: skip
    posteriors = {"posteriors": at("posteriors.bin"), "posteriors_index": at("posteriors.json")}
    run("scoring.dumpout", dumpout=at("dumpout"), **posteriors)
    run(
        "scoring.decode", features_index=at("features.json"), transcripts=at("transcripts.jsonl"),
        index=at("transcripts.json"), **posteriors,
    )  # fmt: skip
    run(
        "scoring.score", transcripts=at("transcripts.jsonl"), features_index=at("features.json"),
        transcripts_index=at("transcripts.json"), score=at("score.json"),
        alignments=at("alignments.jsonl"),
    )  # fmt: skip
    return folder


def numbers(path):
    """The numbers of a file, each followed by one space, with nothing else in it."""
    text = path.read_text(encoding="ascii")
    assert re.fullmatch("([0-9]+ )+", text), text
    return [int(piece) for piece in text.split(" ")[:-1]]


def rows(path):
    """The numbers of each line, which is split at single spaces and loses its last piece."""
    *lines, end = path.read_text(encoding="ascii").split("\n")
    pieces = [line.split(" ") for line in lines]
    assert end == "" and {line[-1] for line in pieces} == {""}
    return [[float(piece) for piece in line[:-1]] for line in pieces]


def read(info, out):
    """Texts (reference, hypothesis) of each utterance, by the files alone."""
    targets, texts = iter(numbers(info / "targets.txt")), []
    for number, size in enumerate(numbers(info / "target_sizes.txt"), 1):
        reference = "".join(LABELS[next(targets)] for _ in range(size))
        (frames,) = numbers(out / f"data{number}_1.txt")
        best = [np.argmax(row) for row in rows(out / f"data{number}_0.txt")[:frames]]
        hypothesis = "".join(LABELS[label] for label, _ in groupby(best) if label != 0)
        texts.append((reference, hypothesis))
    assert not list(targets)
    return texts


def distance(reference, hypothesis):
    """Levenshtein's."""
    row = list(range(len(hypothesis) + 1))
    for i, wanted in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, found in enumerate(hypothesis, 1):
            cost = min(diagonal + (wanted != found), row[j] + 1, row[j - 1] + 1)
            diagonal, row[j] = row[j], cost
    return row[-1]


def test_the_files_are_where_and_what_the_guide_says(folder):
    info, out = folder / "features", folder / "dumpout"
    sizes = numbers(info / "sizes" / "sizes.txt")
    count = len(sizes)
    assert count == len(RECORDINGS) == len(numbers(info / "target_sizes.txt"))
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) > 2
    lines = set()
    for number, size in enumerate(sizes, 1):
        assert np.fromfile(info / f"sizes/data{number}.bin", np.int32).tolist() == [size]
        spectrogram = np.fromfile(info / f"spect/data{number}.bin", np.float32)
        assert not spectrogram.reshape(161, sizes[0])[:, size:].any()
        assert numbers(out / f"data{number}_1.txt") == [(size - 1) // 2 + 1]
        posteriors = np.array(rows(out / f"data{number}_0.txt"))
        np.testing.assert_allclose(posteriors.sum(axis=1), 1, atol=1e-5)
        lines.add(posteriors.shape)
    assert lines == {((sizes[0] - 1) // 2 + 1, len(LABELS))}  # the same for every utterance
    wanted = [f"data{number}_{part}.txt" for number in range(1, count + 1) for part in (0, 1)]
    assert sorted(path.name for path in out.iterdir()) == sorted(wanted)


def test_read_by_the_guides_rules_they_give_our_rates(folder):
    score = json.loads((folder / "score.json").read_text())
    texts = read(folder / "features", folder / "dumpout")
    tokens = {
        "wer": [(reference.split(), hypothesis.split()) for reference, hypothesis in texts],
        "cer": [[text.replace(" ", "") for text in pair] for pair in texts],
    }
    for name, pairs in tokens.items():
        errors = sum(distance(*pair) for pair in pairs)
        length = sum(len(reference) for reference, _ in pairs)
        found = score[name]
        assert found["percent"] == pytest.approx(100 * errors / length, rel=1e-12)
        assert found["reference_length"] == length and 0 < errors < length
    same = {name: [a == b for a, b in pairs] for name, pairs in tokens.items()}
    assert sum(same["wer"]) < sum(same["cer"])  # some differ in spaces only
