"""The exported TorchScript is the same bytes for the same weights, wherever it is made."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT
from deepspeech2 import engines
from deepspeech2.cli import UserError
from deepspeech2.files import sha256
from helpers import (
    assert_one_line_error,
    run_stage,
    tiny_description,
    write_safetensors,
    write_sealed,
)


def model(folder):
    """A model's weights and description, as the stage convert leaves them."""
    weights = write_safetensors(folder / "model.safetensors")
    content = {**tiny_description(), "weights_sha256": sha256(weights)}
    write_sealed(folder / "model.json", content)
    return ["--weights", weights, "--model", folder / "model.json"]


@pytest.mark.parametrize("form", ["static", "packed"])
def test_the_same_weights_give_the_same_bytes(tmp_path, form):
    """In another checkout, another process, under another name, with other hashes of names."""
    arguments = model(tmp_path)
    made = []
    for number, place in enumerate(("one", "a longer place")):
        copy = shutil.copytree(ROOT / "workflow/deepspeech2", tmp_path / place / "deepspeech2")
        network = copy / "model/network.py"
        network.write_text("# another line\n" * number + network.read_text())
        out = tmp_path / place / f"{number}.pt"
        command = [sys.executable, "-m", "deepspeech2.model.torchscript", *map(str, arguments)]
        command += ["--form", form, "--torchscript", out, "--index", tmp_path / place / "i.json"]
        environment = {**os.environ, "PYTHONPATH": str(copy.parent), "PYTHONHASHSEED": str(number)}
        subprocess.run(command, check=True, env=environment)
        made.append((out.read_bytes(), (tmp_path / place / "i.json").read_bytes()))
    assert made[0] == made[1]


def test_it_names_no_place(tmp_path):
    result = run_stage(
        "model.torchscript", *model(tmp_path), "--torchscript", tmp_path / "x.pt", "--index",
        tmp_path / "x.json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        assert not any(name.endswith(".debug_pkl") for name in archive.namelist())
        content = b"".join(map(archive.read, archive.namelist()))
    assert str(ROOT).encode() not in content and str(tmp_path).encode() not in content


def test_an_environment_without_torchscript(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTORCH_JIT", "0")
    outputs = ["--torchscript", tmp_path / "a.pt", "--index", tmp_path / "a.json"]
    result = run_stage("model.torchscript", *model(tmp_path), *outputs)
    assert_one_line_error(result, "PYTORCH_JIT=0")
    with pytest.raises(UserError, match="PYTORCH_JIT=0"):
        engines.create(engines.Engine.parse("torchscript")).prepare()
