"""Sessions of the backend `onnxruntime`."""

from __future__ import annotations

import collections
import json
import logging
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from deepspeech2 import engines
from deepspeech2.cli import UserError

ERRORS_ONLY = 3  # of ONNX Runtime's log
QUANTISED = ("LSTM", "MatMul")  # its convolutions would be slower, and it has no GRU


class Way(NamedTuple):
    """How to run a file: ONNX Runtime's name of the provider, the options that this takes, the kind
    of memory and the number of the device in which tensors lie, and its name of the graph's level.
    """

    provider: str
    options: dict[str, str]
    memory: str
    number: int
    graph_level: str


def opened(
    way: Way, path: Path | bytes, threads: int, profile: str | None = None
) -> onnxruntime.InferenceSession:
    """ONNX Runtime's session of a file, or of its content, by the provider that was asked for.

    The CPU stands behind it. With `profile`, how a file's name begins, it notes what it runs where.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, way.graph_level)
    options.log_severity_level = ERRORS_ONLY
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    # OpenVINO's provider has threads of its own.
    own_threads = {"num_of_threads": str(threads)} if way.provider.startswith("OpenVINO") else {}
    name, content = way.provider, path if isinstance(path, bytes) else str(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a provider is missing: it is an error, below
            providers = [(name, {**way.options, **own_threads})]
            session = onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # its errors have no class in common
        where = f"{path}: " if isinstance(path, Path) else ""
        raise UserError(f"{where}ONNX Runtime cannot open it by {name} ({error})") from None
    if name not in session.get_providers():
        raise UserError(
            f"ONNX Runtime cannot use {name} and would take {', '.join(session.get_providers())} "
            "instead: are its libraries and its device there?"
        )
    session.disable_fallback()
    return session


def probe(way: Way) -> list[str]:
    """Why the provider cannot be had, a line at most, as a network of one node shows."""
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", [x], [y])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    try:
        opened(way, model.SerializeToString(), 1)
    except UserError as error:
        return [str(error)]
    return []


class Session(engines.Session):
    """Runs an ONNX file. Tensors lie where the provider wants them; no order is needed."""

    def __init__(self, way: Way, path: Path, threads: int, profile: str | None = None):
        self.session = opened(way, path, threads, profile)
        self.place = way.memory, way.number
        self.inputs = [one.name for one in self.session.get_inputs()]
        self.outputs = [one.name for one in self.session.get_outputs()]

    def upload(self, spectrograms: np.ndarray, lengths: np.ndarray) -> Any:
        values = spectrograms, lengths.astype(np.int32, copy=False)
        binding = self.session.io_binding()
        for name, value in zip(self.inputs, values):
            moved = onnxruntime.OrtValue.ortvalue_from_numpy(value, *self.place)
            binding.bind_ortvalue_input(name, moved)
        for name in self.outputs:
            binding.bind_output(name, *self.place)
        binding.synchronize_inputs()
        return binding

    def forward(self, batch: Any) -> Any:
        self.session.run_with_iobinding(batch)
        return batch

    def synchronize(self) -> None:
        """ONNX Runtime waits in `forward`."""

    def download(self, result: Any) -> tuple[np.ndarray, np.ndarray]:
        probabilities, lengths = result.copy_outputs_to_cpu()
        return probabilities, lengths


def placement(way: Way, path: Path, shape: engines.Shape) -> dict[str, Any]:
    """What nodes the provider left to the CPU, counted by kind, as a run with zeros shows.

    Raises `UserError` where all were.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = Session(way, path, 1, f"{folder}/profile")
        spectrograms = np.zeros((shape.batch_size, 1, shape.bins, shape.frames), np.float32)
        lengths = np.full(shape.batch_size, shape.frames, np.int32)
        session.forward(session.upload(spectrograms, lengths))
        events = json.loads(Path(session.session.end_profiling()).read_text(encoding="utf-8"))
    nodes = {
        (event["name"], event["args"]["op_name"]): event["args"]["provider"]
        for event in events
        if event.get("cat") == "Node" and event.get("args", {}).get("provider")
    }
    if way.provider not in nodes.values():
        raise UserError(f"ONNX Runtime's {way.provider} computes nothing of {path.name}")
    left = collections.Counter(kind for (_, kind), by in nodes.items() if by != way.provider)
    return {"left to the CPU": dict(sorted(left.items()))} if left else {}


def quantise(source: Path, target: Path, reduce_range: bool) -> dict[str, Any]:
    """Write a file with int8 weights, whose activations are quantised as it runs.

    Returns how many nodes of which kind compute so.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # it advises to prepare the model otherwise
    try:
        quantize_dynamic(
            onnx.load(str(source)), target, QUANTISED, per_channel=True, reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
        )  # fmt: skip
    except Exception as error:  # as above
        raise UserError(f"{source}: ONNX Runtime cannot quantise it ({error})") from None
    kinds = (node.op_type for node in onnx.load(str(target), load_external_data=False).graph.node)
    made = collections.Counter(kind for kind in kinds if re.search("Quantize.+|Integer", kind))
    return {"quantised": dict(sorted(made.items()))}
