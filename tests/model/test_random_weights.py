"""Random weights, which stand in for a checkpoint where only speed counts."""

import os

from conftest import ROOT
from deepspeech2.model import checkpoint
from helpers import run_stage


def test_random_weights_are_those_of_their_seed(tmp_path):
    def make(name, *given, **options):
        path = tmp_path / name
        done = run_stage(
            "model.random_weights", "--labels", ROOT / "resources" / "labels.json",
            "--hidden-size", "8", "--hidden-layers", "2", *given, "--checkpoint", path, **options,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return path

    elsewhere = {**os.environ, "PYTHONHASHSEED": "1"}
    one, two, other = make("1"), make("2", env=elsewhere), make("3", "--seed", "1")
    assert one.read_bytes() == two.read_bytes() != other.read_bytes()
    _, description = checkpoint.read(
        str(make("4", "--rnn-type", "gru", "--lookahead-context", "5"))
    )
    assert description["architecture"] == {
        "bins": 161, "classes": 29, "rnn_type": "gru", "hidden_size": 8, "hidden_layers": 2,
        "bidirectional": False, "lookahead_context": 5,
    }  # fmt: skip
