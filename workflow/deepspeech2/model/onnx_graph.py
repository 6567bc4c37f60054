"""The network as a graph of ONNX."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import torch

from deepspeech2.cli import UserError
from deepspeech2.model import network
from deepspeech2.model.tensors import INPUTS, OUTPUTS
from deepspeech2.model.trace import TRACE_LENGTHS

if TYPE_CHECKING:
    import onnx

RECURRENT = ("LSTM", "GRU", "RNN")
STATES = 5  # the first of their inputs that is a state; before it are X, W, R, B, sequence_lens


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
