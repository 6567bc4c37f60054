"""A model for other programs: TorchScript, ONNX and safetensors, and how to feed them (JSON)."""

from __future__ import annotations

import shutil
from typing import Any

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, log
from deepspeech2.features.spectrogram import SYMMETRIC, Spectrogram
from deepspeech2.files import read_sealed, replacing_folder, require_unaltered, write_json
from deepspeech2.model.tensors import INPUTS, OUTPUTS

HOW = {
    "spectrograms": "features of the utterances, each followed by zeros up to the longest",
    "lengths": "frames of each utterance, at least 1, in any order",
    "probabilities": "of the labels; what lies behind an utterance's output_lengths has no meaning",
    "output_lengths": "frames of each utterance in probabilities: (lengths + 1) // 2",
}


def main(
    weights: Input,
    model: Input,
    torchscript: Input,
    torchscript_index: Input,
    onnx: Input,
    onnx_index: Input,
    package: Output,
) -> None:
    """Command line.

    weights: the model's safetensors
    model: the model's description (JSON)
    torchscript: its TorchScript, of the static form
    torchscript_index: index of that (JSON)
    onnx: its ONNX file, of the static form, for any batch size
    onnx_index: index of that (JSON)
    package: folder to write
    """
    description = read_sealed(model)
    traced, exported = read_sealed(torchscript_index), read_sealed(onnx_index)
    sources = {
        "model.safetensors": (
            *(weights, description["weights_sha256"], model),
            "weights by the names of deepspeech.pytorch V3's state dict",
        ),
        "model.pt": (
            *(torchscript, traced["sha256"], torchscript_index),
            f"TorchScript, by torch {traced['torch']}; takes inputs and returns outputs in order",
        ),
        "model.onnx": (
            *(onnx, exported["sha256"], onnx_index),
            f"ONNX, opset {exported['opset']}; inputs and outputs have names",
        ),
    }
    with replacing_folder(package) as folder:
        for name, (path, expected, index, _) in sources.items():
            require_unaltered(path, expected, index)
            shutil.copyfile(path, folder / name)
        listed = {name: {"is": what, "sha256": sha} for name, (_, sha, _, what) in sources.items()}
        write_json(folder / "model.json", {"files": listed, **how_to_feed(description)})
    log.info("%s for other programs", ", ".join(sources))


def how_to_feed(description: dict[str, Any]) -> dict[str, Any]:
    """What another program must know: audio, spectrogram, inputs, outputs, labels."""
    settings = Spectrogram(**description["spectrogram"])
    sizes = {"channel": 1, "bins": settings.bins, "classes": len(description["labels"])}

    def tensors(axes: dict[str, tuple[str, ...]], kinds: tuple[str, str]) -> list[dict]:
        return [
            {"name": name, "dtype": kind, "shape": [sizes.get(a, a) for a in of], "is": HOW[name]}
            for (name, of), kind in zip(axes.items(), kinds)
        ]

    return {
        "audio": {"sample_rate": settings.sample_rate, "channels": 1, "samples": "from -1 to 1"},
        "spectrogram": {
            "n_fft": settings.n_fft,
            "hop_length": settings.hop,
            "window": settings.window.replace(SYMMETRIC, ""),
            "window_is": "symmetric" if settings.window.endswith(SYMMETRIC) else "periodic",
            "center": True,
            "pad_mode": "reflect",
            "features": "log(1 + magnitude), then over the whole utterance minus the mean and "
            "divided by the standard deviation (of n - 1): bins x frames, float32",
        },
        "inputs": tensors(INPUTS, ("float32", "int32")),
        "outputs": tensors(OUTPUTS, ("float32", "int32")),
        "labels": description["labels"],
        "blank": 0,
        "greedy": "the best label of each frame, repeats merged, then blanks dropped",
        "architecture": description["architecture"],
    }


if __name__ == "__main__":
    cli.run(main)
