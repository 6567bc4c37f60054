"""Reads checkpoints, and writes our own.

Tensors get the names of deepspeech.pytorch V3, and every tensor that the settings imply must be
there with its shape. What a checkpoint does not say, and shapes do not tell, is asked for.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from deepspeech2.cli import UserError
from deepspeech2.corpus import labels
from deepspeech2.features.spectrogram import WINDOWS, Spectrogram
from deepspeech2.model.architecture import (
    GATES,
    METADATA_KEY,
    UNPADDED,
    Architecture,
    of_shapes,
    rnn_input,
)
from deepspeech2.model.stored import DTYPES, RECURRENT, Source, listed, opened

COUNTER = ".num_batches_tracked"  # BatchNorm's; inference does not use it
LOOKAHEAD = "lookahead.0.conv.weight"
OLD_NAMES = {  # of deepspeech.pytorch V1
    r"^conv\.(?=\d)": "conv.seq_module.",
    r"^lookahead\.(0\.)?(conv\.)?weight$": LOOKAHEAD,
}
PREFIX = re.compile(r"(?:(?:module|model|_orig_mod)\.)*")  # DataParallel, wrappers, torch.compile
# Tensors that a training keeps beside its network, by the first part of their names.
EXTRAS = re.compile(
    r"criteri|loss|metric|error_?rate|accuracy|perplexity|optimi[sz]er|scheduler|"
    r"(^|_)(wer|cer|acc)(_|$)|^(n_averaged|global_step|step|epoch)$",
    re.IGNORECASE,
)


def read(
    path: str | Path, labels_: list[str] | None = None, spectrogram: dict[str, Any] | None = None
) -> tuple[dict[str, np.ndarray], dict]:
    """Weights by name and description {labels, spectrogram, architecture} of a checkpoint.

    `labels_` and `spectrogram` are what the checkpoint does not say itself. Names and shapes are
    checked, the numbers are as they are stored (bfloat16 is float32). The description has
    `training` where the checkpoint says how it was trained, and `notes`, a list, where it is not
    plainly what is returned.
    """
    with opened(path) as source:
        names = _names(path, source)
        shapes = {name: source.tensors[stored][0] for name, stored in names.items()}
        if len(shapes.get(LOOKAHEAD, ())) == 2:  # V1's lacks the axis of the one channel
            shapes[LOOKAHEAD] = (shapes[LOOKAHEAD][0], 1, shapes[LOOKAHEAD][1])
        description = _describe(path, source, shapes, labels_, spectrogram)
        expected = Architecture(**description["architecture"]).shapes()
        biases = {name for name in expected if ".rnn.bias_" in name}
        if biases.isdisjoint(names):
            source.notes.append("the recurrent layers have no biases, as in V1: zeros stand there")
            shapes.update({name: expected[name] for name in biases})
        _check_shapes(path, shapes, description)
        _check_numbers(path, source, names)
        weights = {
            name: source.load(names[name]).reshape(shape)
            if name in names
            else np.zeros(shape, np.float32)
            for name, shape in shapes.items()
        }
    if "training" in source.said:
        description["training"] = source.said["training"]
    if source.notes:
        description["notes"] = source.notes
    return weights, description


def describe(path: str | Path, labels_, spectrogram: dict[str, Any], model: dict[str, Any]) -> dict:
    """A checked description from the settings of a checkpoint."""
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
        raise UserError(
            f"{path}: a spectrogram of unknown kind: {found!s:.200}; windows overlap or touch, and "
            f"are one of {', '.join(WINDOWS)}"
        )
    if architecture.rnn_type not in GATES:
        raise UserError(f"{path}: recurrent layers of unknown kind {architecture.rnn_type!r:.100}")
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
        served = f"{low}, as no other is served" if low == high else f"from {low} to {high}"
        raise ValueError(f"{name} must be {served}")
    return value


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


def _names(path: str | Path, source: Source) -> dict[str, str]:
    """The stored names of the network's tensors by those of V3.

    A prefix that all of them have is removed; what a training keeps beside them is left out.
    """
    ends = [name[: -len(RECURRENT)] for name in source.tensors if name.endswith(RECURRENT)]
    prefixes = [end for end in ends if PREFIX.fullmatch(end)]
    if len(prefixes) != 1:
        tops = ends or sorted({f"{name.partition('.')[0]}." for name in source.tensors})
        called = listed([f"{top}*" for top in tops]) or "nothing at all"
        raise UserError(
            f"{path}: not one DeepSpeech2 network: its tensors are called {called}; expected is "
            f"one {RECURRENT}, which module., model. and _orig_mod. may precede; rename them"
        )
    prefix, names, extras = prefixes[0], {}, []
    for stored in source.tensors:
        if stored.endswith(COUNTER):
            continue
        if EXTRAS.search(PREFIX.sub("", stored, count=1).partition(".")[0]):
            extras.append(stored)
            continue
        name = stored[len(prefix) :] if stored.startswith(prefix) else stored
        for old, new in OLD_NAMES.items():
            name = re.sub(old, new, name)
        if not stored.startswith(prefix) or name in names:
            other = names.get(name, f"{prefix}{RECURRENT}")
            raise UserError(
                f"{path}: tensor {listed([stored])} belongs to no DeepSpeech2 network with {other}"
            )
        names[name] = stored
    if prefix:
        source.notes.append(f"tensors are called {prefix}*: the prefix is removed")
    if extras:
        source.notes.append(f"left out: {listed(extras)}")
    return names


def _describe(
    path: str | Path,
    source: Source,
    shapes: dict[str, tuple[int, ...]],
    labels_: list[str] | None,
    spectrogram: dict[str, Any] | None,
) -> dict:
    """The description, of what the checkpoint says, its shapes tell and its user has set."""
    said = {
        "labels": source.said.get("labels"),
        **{key: source.said.get("spectrogram", {}).get(key) for key in Spectrogram._fields},
    }
    given = {"labels": labels_, **(spectrogram or {})}
    for key, value in given.items():
        place = key if key == "labels" else f"spectrogram.{key}"
        if None not in (value, said[key]) and value != said[key]:
            raise UserError(
                f"{path}: its own {key} is {said[key]!r:.200}; remove models.<name>.{place} from "
                "the configuration"
            )
    known = {key: given.get(key) if value is None else value for key, value in said.items()}
    asked = [key for key in Spectrogram._fields if known[key] is None]
    places = ["models.<name>.labels (a JSON file, the blank first)"] * (known["labels"] is None)
    places += [f"models.<name>.spectrogram: {{{', '.join(asked)}}}"] * bool(asked)
    if places:
        raise UserError(
            f"{path}: the checkpoint does not say everything; set {' and '.join(places)} to what "
            "it was trained with"
        )
    model = source.said.get("model", {})
    try:
        model = {**of_shapes(shapes), **model}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        if not model:
            raise UserError(
                f"{path}: its tensors' shapes are no DeepSpeech2 network's ({error!r:.200})"
            ) from None
    if not source.said.get("model"):
        source.notes.append("the architecture is read from the tensors' shapes")
    return describe(path, known.pop("labels"), known, model)


def _check_shapes(path: str | Path, found: dict[str, tuple], description: dict) -> None:
    """Every tensor that the settings imply is there with its shape, and no other."""
    architecture = Architecture(**description["architecture"])
    shapes = architecture.shapes()
    for name, shape in shapes.items():
        if name not in found:
            raise UserError(f"{path}: tensor {name} is missing")
        if tuple(found[name]) != shape:
            hint = ""
            if found[name][1:] == (rnn_input(architecture.bins, UNPADDED),):
                hint = ": convolutions without padding, as in V1, are another network"
            raise UserError(
                f"{path}: tensor {name} has the shape {tuple(found[name])!s:.100}, its settings "
                f"and {len(description['labels'])} labels imply {shape}{hint}"
            )
    unknown = sorted(set(found) - set(shapes))
    if unknown:
        raise UserError(f"{path}: tensor {listed(unknown)} belongs to no DeepSpeech2 network")


def _check_numbers(path: str | Path, source: Source, names: dict[str, str]) -> None:
    """The tensors are of floating-point numbers, and share none: a small file is no large one."""
    total, dtypes = 0, set()
    for stored in names.values():
        shape, dtype = source.tensors[stored]
        if dtype not in DTYPES.values():
            raise UserError(
                f"{path}: tensor {stored} is of type {dtype:.20}; weights are of "
                f"{', '.join(DTYPES.values())}"
            )
        total += math.prod(shape) * (2 if dtype == "bfloat16" else np.dtype(dtype).itemsize)
        dtypes.add(dtype)
    if total > os.path.getsize(path):
        raise UserError(f"{path}: its tensors have more numbers than the file: they share them")
    for dtype in sorted(dtypes - {"float32"}):
        source.notes.append(f"{dtype} is converted to float32")
