"""Make a model from a checkpoint: weights as safetensors, everything else as JSON.

Reads a deepspeech.pytorch V3 checkpoint (a pickled Lightning dict, of which nothing is executed)
or our own safetensors with the description in its metadata. Weights are widened to float32 and
checked: every tensor that the settings imply is there, has the right shape and is finite.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save

from deepspeech2 import inert_pickle, labels, stage
from deepspeech2.architecture import GATES, METADATA_KEY, WINDOWS, Architecture, Spectrogram
from deepspeech2.audio import SAMPLE_RATE
from deepspeech2.files import replacing, sha256, write_json
from deepspeech2.stage import UserError, log

COUNTER = ".num_batches_tracked"  # BatchNorm's; inference does not use it


def read(path: str) -> tuple[dict[str, np.ndarray], dict]:
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
        weights, description = _read_v3(path)
    else:
        weights, description = _read_safetensors(path)
    return weights, description


def describe(path: str, labels_, spectrogram: dict[str, Any], model: dict[str, Any]) -> dict:
    """A checked description from the settings that a checkpoint carries."""
    labels.check(labels_, path)
    try:
        bidirectional = _typed(model, "bidirectional", bool)
        found = Spectrogram(
            _typed(spectrogram, "sample_rate", int, SAMPLE_RATE, SAMPLE_RATE),
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
    with inert_pickle.Checkpoint(path) as checkpoint:
        content = checkpoint.content
        if not isinstance(content, dict):
            raise UserError(f"{path}: not a DeepSpeech2 checkpoint (no dict in it)")
        for key in ("state_dict", "hyper_parameters"):
            if not isinstance(content.get(key), dict):
                raise UserError(f"{path}: not a deepspeech.pytorch V3 checkpoint (lacks {key!r})")
        settings = inert_pickle.plain(content["hyper_parameters"])
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
            if not isinstance(name, str) or not isinstance(tensor, inert_pickle.Tensor):
                raise UserError(f"{path}: state_dict holds something that is no tensor: {name!r}")
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


def metadata_of(description: dict) -> dict[str, str]:
    """A description as the metadata of a safetensors file."""
    return {METADATA_KEY: json.dumps(description, ensure_ascii=False)}


def description_of(metadata: dict[str, str]) -> dict:
    """What `metadata_of` was given."""
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


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--checkpoint", required=True, help="V3 .ckpt or our .safetensors")
    parser.add_argument("--sha256", help="refuse the checkpoint unless this is its SHA-256")
    parser.add_argument("--weights", required=True, help="safetensors to write")
    parser.add_argument("--model", required=True, help="description to write (JSON)")
    parser.add_argument("--half", action="store_true", help="write float16, half the size")
    args = stage.parse(parser, argv)

    weights, description = read(args.checkpoint)
    source = sha256(args.checkpoint)
    if args.sha256 and source != args.sha256.lower():
        raise UserError(
            f"{args.checkpoint}: its SHA-256 is {source}, not {args.sha256} as configured; "
            "fetch it again or correct the model's sha256"
        )
    dtype = np.float16 if args.half else np.float32
    with np.errstate(over="ignore"):  # what overflows is refused in the next lines
        weights = {name: np.ascontiguousarray(w, dtype) for name, w in weights.items()}
    for name, values in weights.items():
        if not np.isfinite(values).all():
            raise UserError(f"{args.checkpoint}: tensor {name} holds NaN or infinity")
    with replacing(args.weights) as temporary:
        temporary.write_bytes(save(weights, metadata_of(description)))
    parameters = sum(
        w.size for name, w in weights.items() if not name.endswith(("running_mean", "running_var"))
    )
    description.update(
        checkpoint=Path(args.checkpoint).name,
        checkpoint_sha256=source,
        weights_sha256=sha256(args.weights),
        parameters=parameters,
    )
    write_json(args.model, description)
    log.info("%d parameters; SHA-256 of the checkpoint: %s", parameters, source)


if __name__ == "__main__":
    stage.run(main)
