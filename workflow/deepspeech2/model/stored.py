"""Opens checkpoints: the tensors in a file, unread, and what the file says of its network.

torch's files hold one of deepspeech.pytorch's packages (V1, V2), a Lightning checkpoint (V3) or a
state dict alone; nothing in them is executed. safetensors may have our description.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors

from deepspeech2.cli import UserError
from deepspeech2.features.spectrogram import SYMMETRIC
from deepspeech2.files import require_file
from deepspeech2.model import pickle_reader
from deepspeech2.model.architecture import METADATA_KEY

RECURRENT = "rnns.0.rnn.weight_hh_l0"  # a tensor that every network has
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# Where deepspeech.pytorch's versions say what the network is.
SETTINGS = ("labels", "spect_cfg", "audio_conf", "model_cfg")
MODEL_SETTINGS = ("rnn_type", "hidden_size", "hidden_layers", "bidirectional")


class Source(NamedTuple):
    """An opened checkpoint.

    `said` has what it says, of: labels, spectrogram, model, training. `notes` grow as it is read.
    """

    tensors: dict[str, tuple[tuple[int, ...], str]]  # shape and dtype by name
    load: Callable[[str], np.ndarray]  # numbers by name; bfloat16 comes as float32
    said: dict[str, Any]
    notes: list[str]


def listed(names: list[str]) -> str:
    """Names that a checkpoint has, a few of them, without characters that a terminal obeys."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(ascii(name)[1:-1][:80] for name in names[:10]) + more


def opened(path: str | Path) -> contextlib.AbstractContextManager[Source]:
    """A checkpoint as a context manager."""
    require_file(path)
    with open(path, "rb") as file:
        start = file.read(9)
    # A zip or a pickle; but safetensors may begin like one, with the length of their header.
    is_torch = start.startswith((b"PK", b"\x80")) and start[8:] != b"{"
    return _torch(path) if is_torch else _safetensors(path)


@contextlib.contextmanager
def _torch(path: str | Path) -> Iterator[Source]:
    with pickle_reader.Checkpoint(path) as checkpoint:
        content = pickle_reader.mapping(checkpoint.content)
        if content is None:
            kind = getattr(checkpoint.content, "name", type(checkpoint.content).__name__)
            raise UserError(
                f"{path}: not a DeepSpeech2 checkpoint (no dict in it, but {kind!r:.100}); save "
                "the network's state_dict()"
            )
        state, notes = _state_dict(path, content)
        tensors = {
            name: tensor
            for name, tensor in state.items()
            if isinstance(name, str) and isinstance(tensor, pickle_reader.Tensor)
        }
        others = [str(name) for name in state if name not in tensors]
        if others and state is not content:
            raise UserError(f"{path}: state_dict holds what is not a tensor: {listed(others)}")
        if others:
            notes.append(f"left out: {listed(others)}")
        yield Source(
            {name: (tensor.shape, tensor.storage.dtype) for name, tensor in tensors.items()},
            lambda name: checkpoint.read(tensors[name], name),
            _said(path, content),
            notes,
        )


def _state_dict(path: str | Path, content: dict) -> tuple[dict, list[str]]:
    """The dict of tensors and notes: `content` itself, its `state_dict`, or its only network."""

    def has_network(value: Any) -> bool:
        return any(isinstance(name, str) and name.endswith(RECURRENT) for name in value or ())

    def has_tensors(value: Any) -> bool:
        return any(isinstance(item, pickle_reader.Tensor) for item in (value or {}).values())

    inner = {str(key): pickle_reader.mapping(value) for key, value in content.items()}
    found = [key for key, value in inner.items() if has_network(value)]
    if has_network(content):
        return content, []
    if isinstance(inner.get("state_dict"), dict):
        others = [key for key in found if key != "state_dict"]
        return inner["state_dict"], [f"left out: {listed(others)}"] * bool(others)
    if not found and has_tensors(content):
        return content, []
    found = found or [key for key, value in inner.items() if has_tensors(value)]
    if len(found) == 1:
        return inner[found[0]], [f"the network is found in {listed(found)}"]
    what = f"tensors in {listed(found)}" if found else "no 'state_dict' in it"
    raise UserError(
        f"{path}: not one DeepSpeech2 network ({what}); save the network's state_dict()"
    )


def _said(path: str | Path, content: dict) -> dict[str, Any]:
    """What a torch checkpoint says of its labels, spectrogram and network."""
    known = {key: content[key] for key in (*SETTINGS, *MODEL_SETTINGS) if key in content}
    settings = pickle_reader.plain(content.get("hyper_parameters", known), path)
    if not isinstance(settings, dict):
        return {}
    labels, spectrogram = settings.get("labels"), settings.get("spect_cfg")
    package = "audio_conf" in content and "hyper_parameters" not in content  # V1, V2
    if package:
        spectrogram = settings.get("audio_conf")
    spectrogram = spectrogram if isinstance(spectrogram, dict) else {}
    window = spectrogram.get("window")
    if isinstance(window, str):
        # In a package, scipy's function of that name makes it, which is symmetric. From the last V2
        # on it is one of an enumeration, and librosa makes it, as in V3.
        named = package and not isinstance(window, pickle_reader.Member)
        spectrogram["window"] = str(window) + SYMMETRIC * named
    model = settings.get("model_cfg", settings)
    model = model if isinstance(model, dict) else {}
    keys = (*MODEL_SETTINGS, "lookahead_context")
    model = {key: model[key] for key in keys if model.get(key) is not None}
    if "lookahead_context" in model:  # V3's sign of a network of one direction
        model.setdefault("bidirectional", False)
    if isinstance(model.get("rnn_type"), str):  # V3 pickles the class: torch.nn.modules.rnn.LSTM
        model["rnn_type"] = model["rnn_type"].rpartition(".")[2].lower()
    return {
        "labels": list(labels) if isinstance(labels, str) else labels,
        "spectrogram": spectrogram,
        "model": model,
    }


@contextlib.contextmanager
def _safetensors(path: str | Path) -> Iterator[Source]:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            tensors = {
                name: (tuple(s.get_shape()), DTYPES.get(s.get_dtype(), s.get_dtype()))
                for name, s in slices.items()
            }
    except safetensors.SafetensorError as error:
        raise UserError(
            f"{path}: neither a torch checkpoint nor safetensors, or cut short ({error})"
        ) from None
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))

        def load(name: str) -> np.ndarray:
            start, end = header[name]["data_offsets"]  # safe_open has checked them
            file.seek(8 + length + start)
            shape, dtype = tensors[name]
            return pickle_reader.as_numbers(file.read(end - start), dtype).reshape(shape)

        yield Source(tensors, load, _described(path, metadata), [])


def _described(path: str | Path, metadata: dict[str, str]) -> dict[str, Any]:
    """What the metadata of safetensors say, if they are ours."""
    if METADATA_KEY not in metadata:
        return {}
    try:
        ours = json.loads(metadata[METADATA_KEY])
        said = {"labels": ours["labels"], "spectrogram": dict(ours["spectrogram"])}
        said["model"] = dict(ours["architecture"])
        if isinstance(ours.get("training"), dict):
            # It is to be written again: no NaN, no half of a character.
            json.dumps(ours["training"], allow_nan=False, ensure_ascii=False).encode()
            said["training"] = ours["training"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: no DeepSpeech2 description in its metadata ({error!r:.200})"
        ) from None
    return said
