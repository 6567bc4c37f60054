"""Export a model as ONNX, in the static or the packed form, for one batch size or for any.

The same weights and versions give the same bytes. The file says itself what it is: labels,
spectrogram and architecture are in its metadata, with the hash of the weights.
"""

from __future__ import annotations

import json
import os
from typing import Literal

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else it warns of what packing looks like

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, UserError, log
from deepspeech2.files import read_sealed, replacing, sha256, write_json
from deepspeech2.model import network
from deepspeech2.model.architecture import METADATA_KEY
from deepspeech2.model.onnx_graph import export

OPSETS = (11, 17)  # 11 is what Huawei's compiler takes in its guide
DESCRIBED = ("labels", "spectrogram", "architecture")


def main(
    weights: Input,
    model: Input,
    onnx: Output,
    index: Output,
    form: Literal[network.FORMS] = "static",
    opset: int = OPSETS[-1],
    batch_size: int | None = None,
) -> None:
    """Command line.

    weights: the model's safetensors
    model: the model's description (JSON)
    onnx: ONNX file to write
    index: its SHA-256 and versions, to write (JSON)
    form: static is order-free; packed has one recurrent node a layer, with the lengths
    opset: version of ONNX's operators
    batch_size: utterances that it takes, no more and no less; any, where none is given
    """
    if opset not in OPSETS:
        raise UserError(f"opset {opset}: must be one of {', '.join(map(str, OPSETS))}")
    description = read_sealed(model)
    proto, versions = export(network.load(weights, model, form + network.WHOLE), opset, batch_size)
    about = {name: description[name] for name in DESCRIBED}
    for key, value in (
        (METADATA_KEY, json.dumps(about, sort_keys=True)),
        ("form", form),
        ("weights_sha256", description["weights_sha256"]),
    ):
        proto.metadata_props.add(key=key, value=value)
    with replacing(onnx) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))
    settings = {"form": form, "opset": opset, "batch_size": batch_size}
    write_json(index, {**settings, "sha256": sha256(onnx), "exporter": versions})
    log.info("exported the %s form with opset %d", form, opset)


if __name__ == "__main__":
    cli.run(main)
