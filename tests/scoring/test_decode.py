"""Decoders, and what is written from posteriors: transcripts, and the guide's text files."""

import json

import numpy as np
import pytest
from deepspeech2.model import posteriors as posteriors_file
from deepspeech2.scoring.decoders.greedy import Decoder as Greedy
from helpers import LABELS, assert_one_line_error, posteriors_of, run_stage, write_sealed


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("AAA", "A"),
        ("A_A", "AA"),
        ("__A__B__", "AB"),
        ("AABB_B", "ABB"),
        ("_", ""),
        ("____", ""),
        ("A", "A"),
        ("  A  ", " A "),
        ("YY_ES_", "YES"),
        ("IT''S", "IT'S"),
    ],
)
def test_greedy(path, text):
    assert Greedy(LABELS)(posteriors_of(path)).text == text


def test_decode_stage(tmp_path):
    utterances = [
        {"id": "ü", "seconds": 1.5, "reference": "YES", "frames": 9},
        {"id": "b", "seconds": 0.5, "reference": "NO", "frames": 3},
    ]
    about = {"labels": LABELS, "spectrogram": {"window_stride": 0.01}}
    write_sealed(tmp_path / "f.json", {**about, "utterances": utterances})
    paths = tmp_path / "p.bin", tmp_path / "p.json"
    given = {"ü": posteriors_of("YE_SS"), "b": posteriors_of("N_")}
    posteriors_file.write(*paths, iter(given.items()), {})
    arguments = (
        "--posteriors", paths[0], "--posteriors-index", paths[1],
        "--features-index", tmp_path / "f.json", "--transcripts", tmp_path / "t.jsonl",
        "--index", tmp_path / "t.json",
    )  # fmt: skip
    assert run_stage("scoring.decode", *arguments).returncode == 0
    lines = (tmp_path / "t.jsonl").read_text(encoding="utf-8").splitlines()
    first, second = map(json.loads, lines)
    assert lines[0].startswith('{"id": "ü", "duration": 1.5, "reference": "YES", "hypothesis": ')
    assert (first["hypothesis"], second["hypothesis"]) == ("YES", "N")
    assert [(text, start, end) for text, start, end, _ in first["characters"]] == [
        ("Y", 0.0, 0.01), ("E", 0.01, 0.03), ("S", 0.05, 0.09)
    ]  # fmt: skip
    assert [(text, start, end) for text, start, end, _ in first["words"]] == [("YES", 0.0, 0.09)]
    posteriors_file.write(*paths, iter([("stranger", posteriors_of("A"))]), {})
    assert_one_line_error(run_stage("scoring.decode", *arguments), "'stranger'")


def test_dumpout(tmp_path):
    """As the guide has it, to the bit, and blank after an utterance's own frames."""
    random = np.random.default_rng(0)
    given = {
        name: np.exp(random.uniform(-90, 0, (frames, len(LABELS)))).astype("f4")
        for name, frames in (("long", 7), ("ü", 4), ("short", 1))
    }
    given["ü"][0, :4] = [1 / 3, np.float32(1e-45), 1, 0]  # the smallest float32 there is
    paths = tmp_path / "p.bin", tmp_path / "p.json"
    posteriors_file.write(*paths, iter(given.items()), {})
    arguments = ("--posteriors", paths[0], "--posteriors-index", paths[1])
    out = tmp_path / "dumpout"
    result = run_stage("scoring.dumpout", *arguments, "--dumpout", out)
    assert result.returncode == 0, result.stderr
    assert {p.name for p in out.iterdir()} == {
        f"data{i}_{k}.txt" for i in (1, 2, 3) for k in (0, 1)
    }
    greedy = Greedy(LABELS)
    for number, (name, rows) in enumerate(given.items(), 1):
        # The guide's script splits at spaces and drops what follows the last one.
        for line in (out / f"data{number}_0.txt").read_text().splitlines(keepends=True):
            assert line.endswith(" \n") and len(line.split(" ")) == len(LABELS) + 1
        found = np.loadtxt(out / f"data{number}_0.txt", dtype=np.float32)
        assert found.shape == (7, len(LABELS))
        assert found[: len(rows)].tobytes() == rows.tobytes(), name
        assert np.loadtxt(out / f"data{number}_1.txt", dtype=int) == len(rows)
        assert set(found[len(rows) :].argmax(axis=1)) <= {0}
        # A script that decodes all rows gets the same text.
        assert greedy(found).text == greedy(rows).text
    assert (out / "data2_1.txt").read_text() == "4 "
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    data = paths[0].read_bytes()
    paths[0].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    result = run_stage("scoring.dumpout", *arguments, "--dumpout", out)
    assert_one_line_error(result, "p.bin: altered", "snakemake --cores all --force", "p.json")
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
