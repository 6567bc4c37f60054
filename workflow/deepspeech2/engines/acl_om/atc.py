"""CANN's compiler atc, and how programs of Huawei's are run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deepspeech2.cli import UserError, log
from deepspeech2.engines import Shape
from deepspeech2.model.tensors import INPUTS

ONNX = 5  # its number of the framework
MISSING = (
    "no program atc on the PATH: install CANN's toolkit; profiles/ascend/python sources its "
    "set_env.sh (docs/hardware.md)"
)


def compile(source: Path, shape: Shape, settings: dict[str, str], target: Path) -> None:
    """Compile an ONNX file for one shape. What atc leaves in its folder goes away with that."""
    batch, bins, frames = shape
    spectrograms, lengths = INPUTS
    with tempfile.TemporaryDirectory() as scratch:
        arguments = {
            "framework": ONNX,
            "model": source.resolve(),
            "input_shape": f"{spectrograms}:{batch},1,{bins},{frames};{lengths}:{batch}",
            "output": f"{scratch}/model",
            **settings,
        }
        words = [f"--{name}={value}" for name, value in arguments.items()]
        what = f"atc for {source.name}, {batch} x {frames} frames"
        text = run(["atc", *words], scratch, what)
        made = list(Path(scratch).glob("model*.om"))  # it may add system and architecture
        if "ATC run failed" in text or len(made) != 1:
            raise UserError(f"{what}: made no .om ({_reason(text)})")
        shutil.move(str(made[0]), target)


def run(command: Sequence[str], folder: str, what: str) -> str:
    """What a program of Huawei's prints, which goes to the log; `UserError` where it fails."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        raise UserError(MISSING) from None
    text = done.stdout + done.stderr
    for line in [shlex.join(command), *text.splitlines()]:
        log.info("%s", line)
    if done.returncode:
        raise UserError(f"{what}: failed with status {done.returncode} ({_reason(text)})")
    return text


def _reason(text: str) -> str:
    """The line of a program's output that says why it failed: with an error's code, or the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["it printed nothing"]
    return next((line for line in lines if re.search(r"\bE[0-9A-Z]\d{4}\b", line)), lines[-1])[:500]
