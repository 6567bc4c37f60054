"""Options are chosen on a validation part, by the errors that they make there."""

import csv
import json

import numpy as np
import pytest
from deepspeech2.files import read_sealed, seal, sha256
from deepspeech2.model import posteriors as posteriors_file
from deepspeech2.scoring import language_model
from helpers import LABELS, assert_one_line_error, posteriors_of, run_stage, write_sealed


def tune(folder, part="val", **grid):
    """Of one utterance that only a language model hears right."""
    (folder / "texts").write_text("GO ON\n")
    model = (folder / name for name in ("m.arpa", "m.json", "k.txt"))
    language_model.main([folder / "texts"], None, "character", 3, *model)
    utterances = [{"id": "u", "seconds": 1.0, "reference": "GO ON", "frames": 18}]
    about = {"labels": LABELS, "manifest": f"own_{part}_manifest.json", "utterances": utterances}
    write_sealed(folder / "f.json", about)
    unclear = posteriors_of("G_O_ _O_M")
    unclear[-1, [LABELS.index("M"), LABELS.index("N")]] = np.float32([0.46, 0.44])
    posteriors_file.write(folder / "p.bin", folder / "p.json", iter([("u", unclear)]), {})
    return run_stage(
        "scoring.tune", "--posteriors", folder / "p.bin", "--posteriors-index", folder / "p.json",
        "--features-index", folder / "f.json", "--language-model-index", folder / "m.json",
        "--decoder", json.dumps({"kind": "beam", "options": {"beam_width": 8}}),
        "--dataset", "own", "--grid", json.dumps(grid), "--tuning", folder / "tuning.json",
        "--table", folder / "grid.tsv",
    )  # fmt: skip


def test_the_line_with_the_fewest_errors_is_chosen(tmp_path):
    pytest.importorskip("flashlight", reason="needs envs/beam.txt")
    result = tune(tmp_path, alpha=[0.0, 1.0, 2.0], beta=[0.5])
    assert result.returncode == 0, result.stderr
    found = read_sealed(tmp_path / "tuning.json")
    assert found["chosen"]["options"] == {"alpha": 1.0, "beta": 0.5}  # the first of two as good
    assert (found["chosen"]["wer_errors"], found["chosen"]["wer"]) == (0, 0)
    assert found["chosen_sha256"] == seal(found["chosen"])
    assert found["grid_sha256"] == sha256(tmp_path / "grid.tsv")
    with open(tmp_path / "grid.tsv", newline="") as file:
        lines = list(csv.DictReader(file, delimiter="\t"))
    assert [(line["alpha"], line["wer_errors"]) for line in lines] == [
        ("0.0", "1"), ("1.0", "0"), ("2.0", "0")
    ]  # fmt: skip


def test_nothing_is_chosen_on_another_part(tmp_path):
    for part in ("test", "train", "all"):
        assert_one_line_error(tune(tmp_path, part, alpha=[1.0]), "is no part val")
    assert not (tmp_path / "tuning.json").exists()
