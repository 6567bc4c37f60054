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
from deepspeech2.architecture import GATES, WINDOWS, Architecture, Spectrogram
from deepspeech2.audio import SAMPLE_RATE
from deepspeech2.files import replacing, sha256, write_json
from deepspeech2.stage import UserError, log

METADATA_KEY = "deepspeech2"  # of the description in our safetensors
COUNTER = ".num_batches_tracked"  # BatchNorm's; inference does not use it


def read(path: str) -> tuple[dict[str, np.ndarray], dict]:
    """Weights by name and description {labels, spectrogram, architecture} of a checkpoint."""
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    if magic[:2] == b"PK":
        weights, description = _read_v3(path)
    else:
        weights, description = _read_safetensors(path)
    _check(path, weights, description)
    return weights, description


def describe(path: str, labels_, spectrogram: dict[str, Any], model: dict[str, Any]) -> dict:
    """A checked description from the settings that a checkpoint carries."""
    labels.check(labels_, path)
    try:
        found = Spectrogram(
            int(spectrogram["sample_rate"]),
            float(spectrogram["window_size"]),
            float(spectrogram["window_stride"]),
            str(spectrogram["window"]),
        )
        bidirectional = bool(model["bidirectional"])
        architecture = Architecture(
            found.bins,
            len(labels_),
            str(model["rnn_type"]),
            int(model["hidden_size"]),
            int(model["hidden_layers"]),
            bidirectional,
            0 if bidirectional else int(model["lookahead_context"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: lacks a setting or has a bad one ({error!r})") from None
    if found.sample_rate != SAMPLE_RATE:
        raise UserError(f"{path}: made for {found.sample_rate} Hz; only {SAMPLE_RATE} Hz is served")
    if found.window not in WINDOWS or not 0 < found.hop <= found.n_fft:
        raise UserError(f"{path}: a spectrogram of unknown kind: {found}")
    if architecture.rnn_type not in GATES:
        raise UserError(f"{path}: recurrent layers of unknown kind {architecture.rnn_type!r}")
    if not (0 < architecture.hidden_size <= 1 << 14 and 0 < architecture.hidden_layers <= 64):
        raise UserError(f"{path}: an impossible size: {architecture}")
    return {
        "labels": labels_,
        "spectrogram": found._asdict(),
        "architecture": architecture._asdict(),
    }


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
        weights = {}
        for name, tensor in content["state_dict"].items():
            if not isinstance(name, str) or not isinstance(tensor, inert_pickle.Tensor):
                raise UserError(f"{path}: state_dict holds something that is no tensor: {name!r}")
            if not name.endswith(COUNTER):
                weights[name] = checkpoint.read(tensor, name)
    return weights, description


def _read_safetensors(path: str) -> tuple[dict[str, np.ndarray], dict]:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {})[METADATA_KEY])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        description = describe(
            path, metadata["labels"], metadata["spectrogram"], metadata["architecture"]
        )
    except safetensors.SafetensorError as error:
        raise UserError(
            f"{path}: neither a torch checkpoint nor safetensors, or cut short ({error})"
        ) from None
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: no DeepSpeech2 description in its metadata ({error!r})") from None
    return weights, description


def _check(path: str, weights: dict[str, np.ndarray], description: dict) -> None:
    shapes = Architecture(**description["architecture"]).shapes()
    for name, shape in shapes.items():
        if name not in weights:
            raise UserError(f"{path}: tensor {name} is missing")
        if weights[name].shape != shape:
            raise UserError(
                f"{path}: tensor {name} has the shape {weights[name].shape}, its settings and "
                f"{len(description['labels'])} labels imply {shape}"
            )
        if not np.isfinite(weights[name]).all():
            raise UserError(f"{path}: tensor {name} holds NaN or infinity")
    unknown = sorted(set(weights) - set(shapes))
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
    weights = {name: np.ascontiguousarray(w, dtype) for name, w in weights.items()}
    metadata = {METADATA_KEY: json.dumps(description, ensure_ascii=False)}
    with replacing(args.weights) as temporary:
        temporary.write_bytes(save(weights, metadata))
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
