"""Reads checkpoints, deepspeech.pytorch V3's and our own, and writes our own.

V3's is a pickled Lightning dict, of which nothing is executed; ours is safetensors with the
description in its metadata. Every tensor that the settings imply must be there with its shape.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save

from deepspeech2.cli import UserError
from deepspeech2.corpus import labels
from deepspeech2.features.spectrogram import WINDOWS, Spectrogram
from deepspeech2.model import pickle_reader
from deepspeech2.model.architecture import GATES, METADATA_KEY, Architecture

COUNTER = ".num_batches_tracked"  # BatchNorm's; inference does not use it


def read(path: str | Path) -> tuple[dict[str, np.ndarray], dict]:
    """Weights by name and description {labels, spectrogram, architecture} of a checkpoint.

    Names and shapes are checked, the numbers are as they are stored. Where the checkpoint says how
    it was trained, the description has that as `training`.
    """
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    if magic[:2] == b"PK":
        return _read_v3(path)
    return _read_safetensors(path)


def describe(path: str, labels_, spectrogram: dict[str, Any], model: dict[str, Any]) -> dict:
    """A checked description from the settings that a checkpoint carries."""
    labels.check(labels_, path)
    try:
        bidirectional = _typed(model, "bidirectional", bool)
        found = Spectrogram(
            _typed(spectrogram, "sample_rate", int, *[Spectrogram().sample_rate] * 2),
            _typed(spectrogram, "window_size", float, 0.001, 1),
            _typed(spectrogram, "window_stride", float, 0.001, 1),
            _typed(spectrogram, "window", str),
        )
        architecture = Architecture(
            found.bins,
            len(labels_),
            _typed(model, "rnn_type", str),
            _typed(model, "hidden_size", int, 1, 1 << 14),
            _typed(model, "hidden_layers", int, 1, 64),
            bidirectional,
            0 if bidirectional else _typed(model, "lookahead_context", int, 1, 1000),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: lacks a setting or has a bad one ({error})") from None
    if found.window not in WINDOWS or found.hop > found.n_fft:
        raise UserError(f"{path}: a spectrogram of unknown kind: {found}")
    if architecture.rnn_type not in GATES:
        raise UserError(f"{path}: recurrent layers of unknown kind {architecture.rnn_type!r}")
    return {
        "labels": labels_,
        "spectrogram": found._asdict(),
        "architecture": architecture._asdict(),
    }


def _typed(settings: dict, name: str, kind: type, low=None, high=None):
    """A setting of exactly this type and within these bounds; an int may stand for a float."""
    value = settings[name]
    if kind is float and type(value) is int and abs(value) < 1 << 53:
        value = float(value)
    if type(value) is not kind:
        raise TypeError(f"{name} must be of type {kind.__name__}")
    if low is not None and not low <= value <= high:
        raise ValueError(f"{name} must be from {low} to {high}")
    return value


def _read_v3(path: str) -> tuple[dict[str, np.ndarray], dict]:
    with pickle_reader.Checkpoint(path) as checkpoint:
        content = checkpoint.content
        if not isinstance(content, dict):
            raise UserError(f"{path}: not a DeepSpeech2 checkpoint (no dict in it)")
        for key in ("state_dict", "hyper_parameters"):
            if not isinstance(content.get(key), dict):
                raise UserError(f"{path}: not a deepspeech.pytorch V3 checkpoint (lacks {key!r})")
        settings = pickle_reader.plain(content["hyper_parameters"])
        for key, kind in (("labels", list), ("spect_cfg", dict), ("model_cfg", dict)):
            if not isinstance(settings.get(key), kind):
                raise UserError(f"{path}: hyper_parameters lacks a {kind.__name__} {key!r}")
        model = dict(settings["model_cfg"])
        # Pickled as the class of the layers: torch.nn.modules.rnn.LSTM.
        model["rnn_type"] = str(model.get("rnn_type")).rpartition(".")[2].lower()
        # V3 tells the two kinds apart by the class of the settings; both leave these marks.
        model["bidirectional"] = "lookahead_context" not in model
        description = describe(path, settings["labels"], settings["spect_cfg"], model)
        tensors = {}
        for name, tensor in content["state_dict"].items():
            if not isinstance(name, str) or not isinstance(tensor, pickle_reader.Tensor):
                raise UserError(f"{path}: state_dict holds what is not a tensor: {name!r}")
            if not name.endswith(COUNTER):
                tensors[name] = tensor
        _check_shapes(path, {name: t.shape for name, t in tensors.items()}, description)
        return {name: checkpoint.read(t, name) for name, t in tensors.items()}, description


def _read_safetensors(path: str) -> tuple[dict[str, np.ndarray], dict]:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {})[METADATA_KEY])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        description = describe(
            path, metadata["labels"], metadata["spectrogram"], metadata["architecture"]
        )
        _check_shapes(path, {name: w.shape for name, w in weights.items()}, description)
        if isinstance(metadata.get("training"), dict):
            # It is to be written again: no NaN, no half of a character.
            json.dumps(metadata["training"], allow_nan=False, ensure_ascii=False).encode()
            description["training"] = metadata["training"]
    except safetensors.SafetensorError as error:
        raise UserError(
            f"{path}: neither a torch checkpoint nor safetensors, or cut short ({error})"
        ) from None
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: no DeepSpeech2 description in its metadata ({error!r:.200})"
        ) from None
    return weights, description


def to_safetensors(weights: Mapping[str, Any], description: dict) -> bytes:
    """Weights (arrays, or tensors on the host) and their description as bytes of safetensors."""
    arrays = {
        name: np.ascontiguousarray(values)
        for name, values in weights.items()
        if not name.endswith(COUNTER)
    }
    return save(arrays, {METADATA_KEY: json.dumps(description, ensure_ascii=False)})


def description_of(metadata: dict[str, str]) -> dict:
    """The description in the metadata of our safetensors."""
    return json.loads(metadata[METADATA_KEY])


def _check_shapes(path: str, found: dict[str, tuple], description: dict) -> None:
    """Every tensor that the settings imply is there with its shape, and no other."""
    shapes = Architecture(**description["architecture"]).shapes()
    for name, shape in shapes.items():
        if name not in found:
            raise UserError(f"{path}: tensor {name} is missing")
        if tuple(found[name]) != shape:
            raise UserError(
                f"{path}: tensor {name} has the shape {tuple(found[name])!s:.100}, its settings "
                f"and {len(description['labels'])} labels imply {shape}"
            )
    unknown = sorted(set(found) - set(shapes))
    if unknown:
        raise UserError(f"{path}: tensor {unknown[0]} belongs to no DeepSpeech2 network")
