"""Strict stand-ins for CANN's atc, ais_bench and aclruntime, and for a device: for tests only.

They take what manuals and public code have, and refuse what those refuse; where nobody knows, they
refuse. An offline model of theirs is the ONNX file with what it was compiled for, and ONNX Runtime
computes it on the CPU, with weights and inputs rounded as the device would. Nothing that they
measure is a real figure. Of atc's codes E10001, E10002 and E10054 are real ones.

Environment: FAKE_ASCEND_SOC is the device's kind, FAKE_AIS_BENCH the generation of ais_bench (old
or new), FAKE_ATC_OPSET the newest opset that atc knows, FAKE_ATC_REFUSES operators that it does
not, FAKE_ATC_SUFFIX what it adds to the name of its output.
"""

import argparse
import enum
import hashlib
import json
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

MAGIC = b"FAKE OM\n"
SOCS = ("Ascend310", "Ascend310P3", "Ascend910B3", "Ascend910B4")
DEVICES = 2
GEARS = ("dynamic_batch_size", "dynamic_dims", "dynamic_image_size")
# Options of atc with the values that it takes; None: any.
OPTIONS = {
    "framework": ("0", "1", "3", "5"),
    **dict.fromkeys(("model", "output", "input_shape", "soc_version", *GEARS)),
    "input_format": ("NCHW", "ND", "NCDHW"),
    "log": ("debug", "info", "warning", "error", "null"),
    "precision_mode": (
        *("force_fp16", "force_fp32", "allow_fp32_to_fp16"),
        *("must_keep_origin_dtype", "allow_mix_precision"),
    ),
    "precision_mode_v2": ("fp16", "origin", "mixed_float16"),
    "output_type": ("FP32", "FP16", "UINT8", "INT8"),
}
HALF = ("force_fp16", "allow_mix_precision", "fp16", "mixed_float16")
MODES = "static dymbatch dymhw dymdims dymshape".split()


class AtcError(Exception):
    """What atc ends with: a code and its words."""


def generation():
    return os.environ.get("FAKE_AIS_BENCH", "old")


def soc():
    return os.environ.get("FAKE_ASCEND_SOC", "Ascend310P3")


# atc


def options_of(words):
    """Options by name: one or two dashes, `_` or `-`, a value behind `=` or a space."""
    found, words = {}, list(words)
    while words:
        word = words.pop(0)
        name, sign, value = word.lstrip("-").partition("=")
        name = name.replace("-", "_")
        if not word.startswith("-") or name not in OPTIONS:
            raise AtcError(f"E10001: Value [{word}] for parameter [unknown] is invalid")
        value = value if sign else words.pop(0) if words else ""
        if OPTIONS[name] and value not in OPTIONS[name]:
            raise AtcError(f"E10001: Value [{value}] for parameter [{name}] is invalid")
        found[name] = value
    for name in ("model", "framework", "output", "soc_version"):
        if not found.get(name):
            raise AtcError(f"E10054: The required parameter [{name}] for ATC is empty")
    if found["framework"] != "5":
        raise AtcError("E10001: Value [framework] is not ONNX's")
    if found["soc_version"] not in SOCS:
        raise AtcError(f"E10001: Value [{found['soc_version']}] for [soc_version] is invalid")
    if {"precision_mode", "precision_mode_v2"} <= set(found):
        raise AtcError("E10001: precision_mode and precision_mode_v2 exclude each other")
    if sum(name in found for name in GEARS) > 1:
        raise AtcError(f"E10001: {', '.join(GEARS)} exclude one another")
    return found


def shapes_of(text):
    """Dimensions by input's name: `name:1,2;name:3`, with -1 for what is not fixed."""
    shapes = {}
    for part in text.split(";") if text else ():
        if not re.fullmatch(r"[^:;]+:-?\d+(,-?\d+)*", part):
            raise AtcError(f"E10002: Value [{text}] for parameter [--input_shape] is invalid")
        name, _, sizes = part.rpartition(":")
        shapes[name] = list(map(int, sizes.split(",")))
    return shapes


def gears_of(found, shapes):
    """The sizes that a model with dynamic dimensions is compiled for."""
    free = [(name, n) for name, dims in shapes.items() for n, d in enumerate(dims) if d == -1]
    name = next((name for name in GEARS if name in found), None)
    if free and not name:
        raise AtcError(f"E10001: the dimensions {free} of [--input_shape] need gears")
    if not name:
        return None
    text = found[name]
    if name == "dynamic_batch_size":
        gears = [[int(size)] for size in text.split(",")]
        if not free or any(n for _, n in free):
            raise AtcError("E10001: dynamic_batch_size takes a first dimension of -1, and no other")
    elif name == "dynamic_dims":
        gears = [list(map(int, gear.split(","))) for gear in text.split(";")]
        if found.get("input_format") != "ND" or any(len(gear) != len(free) for gear in gears):
            raise AtcError("E10001: dynamic_dims takes input_format ND, and a size for each -1")
    else:
        raise AtcError("E10001: dynamic_image_size is for images")
    if not 2 <= len(gears) <= 100 or not all(1 <= x <= 2048 for gear in gears for x in gear):
        raise AtcError("E10001: 2 to 100 gears, each size from 1 to 2048")
    return {"kind": name, "sizes": gears, "free": free}


def check_network(model, shapes, gears):
    """Refuse what atc does not compile."""
    import onnx

    newest = int(os.environ.get("FAKE_ATC_OPSET", "13"))
    version = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    if version > newest:
        raise AtcError(f"E16005: opset version {version} is not supported, the newest is {newest}")
    names = [one.name for one in model.graph.input]
    if set(shapes) - set(names):
        raise AtcError(f"E10016: {sorted(set(shapes) - set(names))} are no inputs of the model")
    for one in model.graph.input:
        dims = one.type.tensor_type.shape.dim
        sizes = shapes.setdefault(one.name, [d.dim_value or -1 for d in dims])
        if len(sizes) != len(dims) or any(
            d.dim_value and s not in (d.dim_value, -1) for d, s in zip(dims, sizes)
        ):
            raise AtcError(f"E10017: shape {sizes} of [{one.name}] is not the model's")
        for dim, size in zip(dims, sizes):
            dim.Clear()
            if size > 0:
                dim.dim_value = size
    if not gears and any(-1 in sizes for sizes in shapes.values()):
        raise AtcError("E10001: dynamic dimensions are left, [--input_shape] lacks an input")
    refused = {"If", "Loop", "Scan", *os.environ.get("FAKE_ATC_REFUSES", "").split()}
    for node in model.graph.node:
        if node.op_type in refused:
            raise AtcError(f"E19010: No parser is registered for Op [{node.name}, {node.op_type}]")
    for one in model.graph.output:
        one.type.tensor_type.ClearField("shape")
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    ranks = {
        one.name: [d.dim_value for d in one.type.tensor_type.shape.dim]
        for one in (*model.graph.value_info, *model.graph.input)
    }
    constant = {one.name for one in model.graph.initializer}
    constant |= {o for node in model.graph.node if node.op_type == "Constant" for o in node.output}
    for node in model.graph.node:
        if node.op_type == "LSTM":
            given = dict(zip(("X", "W", "R", "B", "lengths"), node.input))
            if not {given["W"], given["R"], given.get("B") or given["W"]} <= constant:
                raise AtcError(f"EZ9999: {node.name}: weights of an LSTM must be constants")
            lengths = given.get("lengths")
            if lengths and (len(ranks.get(lengths, ())) != 1 or not ranks[lengths][0]):
                raise AtcError(f"EZ9999: {node.name}: sequence_lens must be 1-D and static")
    return model


def compiled(found):
    """The bytes of an offline model."""
    import onnx

    shapes = shapes_of(found.get("input_shape", ""))
    gears = gears_of(found, shapes)
    try:
        model = onnx.load(found["model"])
        onnx.checker.check_model(model)
    except Exception as error:
        raise AtcError(f"E16006: Parsing [{found['model']}] failed: {error}") from None
    model = check_network(model, shapes, gears)
    mode = found.get("precision_mode") or found.get("precision_mode_v2") or "force_fp16"
    if mode in HALF:
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                values = onnx.numpy_helper.to_array(tensor).astype("f2").astype("f4")
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    content = model.SerializeToString()
    about = {
        "soc": found["soc_version"], "precision_mode": mode, "gears": gears,
        "output_type": found.get("output_type"),
        "sha256": hashlib.sha256(content).hexdigest(),
        "inputs": [
            [one.name, shapes[one.name], str(onnx.helper.tensor_dtype_to_np_dtype(
                one.type.tensor_type.elem_type))]
            for one in model.graph.input
        ],
    }  # fmt: skip
    return MAGIC + json.dumps(about).encode() + b"\n" + content


def atc(words):
    """The program; returns its exit status."""
    print("ATC start working now, please wait for a moment.")
    try:
        found = options_of(words)
        content = compiled(found)
        # As the real one does: it leaves things in the folder that it is started in.
        Path("fusion_result.json").write_text("{}")
        Path(found["output"] + os.environ.get("FAKE_ATC_SUFFIX", "") + ".om").write_bytes(content)
    except AtcError as error:
        print("ATC run failed, Please check the detail log, Try 'atc --help' for more information")
        print(error)
        return 255
    print("ATC run success, welcome to the next use.")
    return 0


# aclruntime and ais_bench


class dtype(enum.Enum):
    """aclruntime's types."""

    int8, uint8, int32, int64, float16, float32, bool = range(7)

    def __str__(self):
        return f"dtype.{self.name}"


class Tensor:
    """aclruntime's tensor: an array that may lie on a device."""

    def __init__(self, array):
        self.array, self.shape = np.array(array), list(np.shape(array))

    def to_device(self, number):
        if not 0 <= number < DEVICES:
            raise RuntimeError("acl set device failed")


class Model:
    """An offline model on a device."""

    def __init__(self, number, path):
        import onnxruntime

        if type(number) is not int or not 0 <= number < DEVICES:
            raise RuntimeError(f"device_id {number!r} is invalid")
        if type(path) is not str or not os.path.isfile(path) or not path.endswith(".om"):
            raise RuntimeError(f"model path {path!r} is invalid")
        content = Path(path).read_bytes()
        magic, _, rest = content.partition(b"\n")
        head, _, body = rest.partition(b"\n")
        try:
            if magic + b"\n" != MAGIC:
                raise ValueError("no offline model")
            self.about = json.loads(head)
            if hashlib.sha256(body).hexdigest() != self.about["sha256"]:
                raise ValueError("truncated")
        except ValueError as error:
            raise RuntimeError(f"load model from file failed, ret 500002 ({error})") from None
        if self.about["soc"] != soc():
            raise RuntimeError(f"load model failed, 500002: {self.about['soc']} is not {soc()}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self.session = onnxruntime.InferenceSession(body, options, ["CPUExecutionProvider"])
        self.gear, self.times, self.freed = None, [], False

    def inputs(self):
        self.require()
        return [
            SimpleNamespace(
                name=name, datatype=dtype[kind], format=2, shape=shape,
                realsize=bytes_of(shape, kind), size=bytes_of(shape, kind),
            )
            for name, shape, kind in self.about["inputs"]
        ]  # fmt: skip

    def require(self):
        if self.freed:
            raise RuntimeError("used after its resources were freed")

    def run(self, arrays):
        """Compute what the bytes of the inputs hold, as the model's own types have them."""
        self.require()
        gears, wanted = self.about["gears"], self.about["inputs"]
        if bool(gears) != bool(self.gear):
            raise RuntimeError("a model with gears needs one to be set, and no other model does")
        if len(arrays) != len(wanted):
            raise RuntimeError(f"{len(arrays)} inputs for {len(wanted)}")
        feeds = {}
        for array, (name, shape, kind) in zip(arrays, wanted):
            shape = list(shape)
            for (where, axis), size in zip(gears["free"], self.sizes()) if gears else ():
                if where == name:
                    shape[axis] = size
            if array.nbytes != bytes_of(shape, kind):
                raise RuntimeError(f"{name}: {array.nbytes} bytes for {bytes_of(shape, kind)}")
            value = np.frombuffer(array.tobytes(), kind).reshape(shape)
            half = self.about["precision_mode"] in HALF and kind == "float32"
            feeds[name] = value.astype("f2").astype("f4") if half else value
        start = time.perf_counter()
        outputs = self.session.run(None, feeds)
        end = time.perf_counter()
        pair = (1000 * start, 1000 * end)
        self.times.append(pair if generation() == "new" else pair[1] - pair[0])
        if self.about["precision_mode"] in HALF:
            to = "f2" if self.about["output_type"] == "FP16" else "f4"
            outputs = [x.astype("f2").astype(to) if x.dtype.kind == "f" else x for x in outputs]
        return outputs

    def sizes(self):
        many = len(self.about["gears"]["free"])
        return self.gear * many if len(self.gear) == 1 else self.gear


def bytes_of(shape, kind):
    return int(np.prod([max(size, 0) for size in shape])) * np.dtype(kind).itemsize


class Session:
    """What both generations of ais_bench's InferSession have."""

    def __init__(self, device_id, model_path, acl_json_path=None, debug=False, loop=1):
        self._model, self._loop = Model(device_id, model_path), loop

    def get_inputs(self):
        return self._model.inputs()

    def get_outputs(self):
        return [SimpleNamespace(name=one.name) for one in self._model.session.get_outputs()]

    def _infer(self, feeds, mode):
        arrays = []
        for feed in feeds:
            if isinstance(feed, Tensor):
                arrays.append(feed.array)
            elif type(feed) is np.ndarray or isinstance(feed, np.generic):
                arrays.append(np.ascontiguousarray(feed))
            elif hasattr(feed, "numpy"):  # a tensor of torch's
                arrays.append(feed.numpy())
            else:
                raise RuntimeError(f"type:{type(feed)} invalid")
        self._model.gear = None
        if mode in ("dymbatch", "dymdims"):
            gears = self._model.about["gears"] or {"sizes": [], "free": []}
            sizes = [
                arrays[[one[0] for one in self._model.about["inputs"]].index(name)].shape[axis]
                for name, axis in gears["free"]
            ]
            sizes = sizes[:1] if mode == "dymbatch" else sizes
            if sizes not in gears["sizes"]:
                raise RuntimeError(f"{sizes} is no gear of the model")
            self._model.gear = sizes
        for _ in range(self._loop):
            outputs = self._model.run(arrays)
        return outputs


class OldSession(Session):
    """Of 2023."""

    def infer(self, feeds, mode="static", custom_sizes=100000):
        return self._infer(feeds, mode)  # an unknown mode is ignored

    def sumary(self):
        return SimpleNamespace(exec_time_list=list(self._model.times))

    def reset_sumaryinfo(self):
        self._model.times.clear()


class NewSession(Session):
    """Of msit and later."""

    def infer(self, feeds, mode="static", custom_sizes=100000, out_array=True):
        if mode not in MODES:
            raise RuntimeError(f"wrong infer_mode:{mode}")
        return self._infer(feeds, mode)

    def summary(self):
        self._model.require()
        return SimpleNamespace(exec_time_list=list(self._model.times))

    def reset_summaryinfo(self):
        self._model.times.clear()

    def free_resource(self):
        self._model.require()
        self._model.freed = True

    @staticmethod
    def finalize():
        pass


def InferSession(*arguments, **keywords):
    """The class of this generation."""
    return (NewSession if generation() == "new" else OldSession)(*arguments, **keywords)


# ais_bench's command line


def natural(path):
    return [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", path.name)]


def files_of(folder):
    """What it takes of a folder: .npy and .bin, numbers in their order."""
    return sorted((p for p in Path(folder).iterdir() if p.suffix in (".npy", ".bin")), key=natural)


def write(path, array, form):
    """An output as a file. Text has six decimals, and a blank behind each value."""
    if form == "TXT":
        pattern = "%d" if array.dtype.kind in "iu" else "%f"
        rows = array.reshape(-1, array.shape[-1]).tolist()
        text = "".join("".join(f"{pattern} " % value for value in row) + "\n" for row in rows)
        path.with_suffix(".txt").write_text(text)
    elif form == "NPY":
        np.save(path.with_suffix(".npy"), array)
    else:
        path.with_suffix(".bin").write_bytes(array.tobytes())


def read(path):
    return np.load(path) if path.suffix == ".npy" else np.frombuffer(path.read_bytes(), "u1")


def ais_bench(words):
    """`python -m ais_bench`, which abbreviates its options as argparse does."""
    parser = argparse.ArgumentParser("ais_bench")
    for name in ("model", "input", "output", "output_dirname"):
        parser.add_argument(f"--{name}", required=name == "model")
    parser.add_argument("--outfmt", default="BIN", choices=("BIN", "NPY", "TXT"))
    parser.add_argument("--pure_data_type", default="zero", choices=("zero", "random"))
    for name, default in (("loop", 1), ("warmup_count", 1), ("device", 0), ("batchsize", None)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name in ("dymBatch", "dymHW", "dymDims", "dymShape"):
        parser.add_argument(f"--{name}")
    args = parser.parse_args(words)
    if sum(bool(getattr(args, name)) for name in ("dymBatch", "dymHW", "dymDims", "dymShape")) > 1:
        raise RuntimeError("dymBatch, dymHW, dymDims and dymShape exclude one another")
    if args.output_dirname and not args.output:
        raise RuntimeError("output_dirname needs output")
    model = Model(args.device, args.model)
    wanted = model.inputs()
    size = args.batchsize or wanted[0].shape[0]
    zeros = [np.zeros(one.realsize, "u1") for one in wanted]
    if args.pure_data_type == "random":
        zeros = [np.random.default_rng(0).integers(0, 256, one.realsize, "u1") for one in wanted]
    for _ in range(args.warmup_count):
        model.run(zeros)
    model.times.clear()
    target = None
    if args.output:
        name = args.output_dirname or time.strftime("%Y_%m_%d-%H_%M_%S")
        target = Path(args.output, name)
        target.mkdir(parents=True, exist_ok=True)
    if not args.input:
        for _ in range(args.loop):
            model.run(zeros)
    else:
        folders = [files_of(folder) for folder in args.input.split(",")]
        if len(folders) != len(wanted):
            raise RuntimeError(f"{len(folders)} folders for {len(wanted)} inputs")
        _files(model, wanted, folders, target, args.outfmt)
    times = [one if np.isscalar(one) else one[1] - one[0] for one in model.times]
    p99 = "P99" if generation() == "new" else "percentile(99%)"
    about = {
        "min": min(times), "max": max(times), "mean": float(np.mean(times)),
        "median": float(np.median(times)), p99: float(np.percentile(times, 99)),
        "count": len(times),
    }  # fmt: skip
    throughput = 1000 * size / about["mean"]
    print(f"[INFO] throughput 1000*batchsize/NPU_compute_time.mean: {throughput}")
    if target:
        summary = {"args": vars(args), "NPU_compute_time": about, "throughput": throughput,
                   "npu_compute_time_list": times, "pid": os.getpid()}  # fmt: skip
        target.with_name(f"{target.name}_summary.json").write_text(json.dumps(summary))


def _files(model, wanted, folders, target, form):
    """Files as input, so many in a call as fill the first one; a last call is filled up with its
    own first file, whose copies are not kept.
    """
    firsts = [read(path).nbytes for path in folders[0]]
    if any(wanted[0].realsize % count for count in firsts):
        raise RuntimeError(f"arg0 tensorsize: {wanted[0].realsize} filesize: {firsts[0]} not match")
    each = wanted[0].realsize // firsts[0]
    for start in range(0, len(folders[0]), each):
        arrays = []
        for paths in folders:
            values = [read(path) for path in paths[start : start + each]]
            values += values[:1] * (each - len(values))
            arrays.append(np.concatenate(values))
        outputs = model.run(arrays)
        for row, path in enumerate(folders[0][start : start + each]):
            for number, output in enumerate(outputs):
                if target:
                    one = output[row : row + 1]
                    write(target / f"{path.name.partition('.')[0]}_{number}", one, form)
