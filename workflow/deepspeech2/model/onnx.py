"""Export a model as ONNX, in the static or the packed form, for one batch size or for any.

The same weights and versions give the same bytes. The file says itself what it is: labels,
spectrogram and architecture are in its metadata, with the hash of the weights.
"""

from __future__ import annotations

import io
import json
import os
import warnings
from typing import TYPE_CHECKING, Any, Literal

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else it warns of what packing looks like
import torch

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, UserError, log
from deepspeech2.files import read_sealed, replacing, sha256, write_json
from deepspeech2.model import network
from deepspeech2.model.architecture import METADATA_KEY
from deepspeech2.model.trace import TRACE_LENGTHS

if TYPE_CHECKING:
    import onnx

OPSETS = (11, 17)  # 11 is what Huawei's compiler takes in its guide
# Names of inputs and outputs, with their axes.
INPUTS = {"spectrograms": ("batch", "channel", "bins", "frames"), "lengths": ("batch",)}
OUTPUTS = {"probabilities": ("batch", "output_frames", "classes"), "output_lengths": ("batch",)}
DESCRIBED = ("labels", "spectrogram", "architecture")
RECURRENT = ("LSTM", "GRU", "RNN")
STATES = 5  # the first of their inputs that is a state; before it are X, W, R, B, sequence_lens


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


def export(
    net: network.DeepSpeech2, opset: int, batch_size: int | None = None
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The network as a checked ONNX model, and what made it.

    It takes INPUTS and returns OUTPUTS, as the network itself. T' is that of T in both forms; the
    packed one needs no order. Raises `UserError` where the package onnx is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise UserError(
            f"exporting ONNX needs the package onnx ({error}); pip install -r envs/onnxruntime.txt"
        ) from None
    count = batch_size or len(TRACE_LENGTHS)
    lengths = torch.tensor((TRACE_LENGTHS * count)[:count]).sort(descending=True).values.int()
    shape = (count, 1, net.architecture.bins, max(TRACE_LENGTHS))
    example = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    content = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of what is traced, and that this way is the older one
        torch.onnx.export(
            net,
            (example, lengths),
            content,
            dynamo=False,  # torch's newer exporter does not know packed sequences
            opset_version=opset,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes=_dynamic_axes(any_batch=batch_size is None),
        )
    proto = onnx.load_from_string(content.getvalue())
    _drop_zero_states(proto.graph)
    if batch_size:  # the exporter leaves it open there
        proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = batch_size
    onnx.checker.check_model(proto, full_check=True)
    return proto, {"torch": torch.__version__, "onnx": onnx.__version__}


def _dynamic_axes(any_batch: bool) -> dict[str, dict[int, str]]:
    """The axes whose size is not fixed, by number."""
    free = {"frames", "output_frames", *(["batch"] if any_batch else [])}
    return {
        name: {number: axis for number, axis in enumerate(axes) if axis in free}
        for name, axes in {**INPUTS, **OUTPUTS}.items()
    }


def _drop_zero_states(graph: Any) -> None:
    """Leave out the states before the first frame, which are zero, as ONNX takes them to be.

    As computed from the input's shape they would be no constants, of which compilers make more than
    there is.
    """
    for node in graph.node:
        if node.op_type in RECURRENT:
            del node.input[STATES:]
            while not node.input[-1]:
                del node.input[-1]
    needed = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(node.input)


if __name__ == "__main__":
    cli.run(main)
