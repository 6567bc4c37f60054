"""The backend `native`: the network in machine code made for this CPU, in fp32, bf16 or int8.

It computes the frames that there are and no padding: utterances are taken in order of length, and
drop out of the batch where they end. Each utterance's posteriors depend on nothing but itself, so
they are the same bits at any batch size, padding and number of threads. The artefact has the
weights as the kernels read them; the kernels' code is numba's, made when it is first used.

int8: weights have a scale for each output, activations one for each frame (of the state too, at
each step), and in the second convolution one for each utterance. The first convolution is in
bfloat16. Sums of int8 are exact, and cells, normalisation and softmax are float32.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from deepspeech2 import backends
from deepspeech2.backends import Shape
from deepspeech2.stage import UserError

ARTEFACT = "weights.safetensors"
TYPES = {"int8": np.uint8, "bf16": np.uint16, "fp32": np.float32}  # of activations
KINDS = {"lstm": 1, "gru": 2, "rnn": 3}  # vectors.LSTM ...
ALONE = 16  # utterances a thread from which on each computes its own, and none waits for others


class Backend(backends.Backend):
    """See the module."""

    def check(self) -> None:
        engine = self.engine
        if engine.device != "cpu":
            raise UserError(f"backend native serves the device cpu, not {engine.device!r}")
        if engine.precision not in TYPES:
            raise UserError(f"backend native computes {', '.join(TYPES)}, not {engine.precision!r}")
        if engine.form != "static":
            raise UserError("backend native has no form packed")

    @property
    def source(self) -> str:
        return "weights"

    def prepare(self) -> None:
        from deepspeech2 import convolutions, layers  # noqa: F401  it takes a second

    def compile(self, source: Path, shapes: Sequence[Shape], folder: Path) -> dict[str, Any]:
        from safetensors.numpy import save

        from deepspeech2 import checkpoint, packing, vectors
        from deepspeech2.architecture import Architecture

        weights, description = checkpoint.read(source)
        architecture = Architecture(**description["architecture"])
        packed = packing.pack(weights, architecture, self.engine.precision)
        metadata = checkpoint.metadata_of({"architecture": architecture._asdict()})
        (folder / ARTEFACT).write_bytes(save(packed, metadata))
        session = self.open(folder, 1)  # makes the kernels' code, which numba keeps
        session.forward(session.upload(np.zeros((1, 1, architecture.bins, 1), "f4"), np.ones(1)))
        session.close()
        return {"vnni": vectors.HAS_VNNI, "avx512_bf16": vectors.HAS_BF16}

    def open(self, folder: Path, threads: int) -> backends.Session:
        import safetensors

        from deepspeech2 import checkpoint
        from deepspeech2.architecture import Architecture

        with safetensors.safe_open(folder / ARTEFACT, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            description = checkpoint.description_of(file.metadata())
        architecture = Architecture(**description["architecture"])
        return Session(arrays, architecture, TYPES[self.engine.precision], threads)

    def versions(self) -> dict[str, str]:
        import llvmlite
        import numba

        return {"numba": numba.__version__, "llvmlite": llvmlite.__version__}


def dealt(order: np.ndarray, parts: int) -> list[np.ndarray]:
    """Utterances, longest first, dealt out to so many parts, there and back: equally much for each.

    There are fewer parts where there are fewer utterances.
    """
    turn = np.arange(len(order)) % (2 * parts)
    part = np.minimum(turn, 2 * parts - 1 - turn)
    return [order[part == n] for n in range(min(parts, len(order)))]


class Work:
    """Work space of one thread, kept from batch to batch."""

    def __init__(self):
        self._arrays: dict[str, np.ndarray] = {}
        self.spent = np.zeros(0, np.int64)  # by kernels.LAPS, where time is counted

    def get(self, name: str, size: int, dtype: Any) -> np.ndarray:
        """An array of at least `size` elements; what is in it is left from before."""
        found = self._arrays.get(name)
        if found is None or len(found) < size:
            found = self._arrays[name] = np.empty(size, dtype)
        return found


class Session(backends.Session):
    """Runs the packed weights."""

    def __init__(self, arrays, architecture, dtype, threads: int):
        self.a, self.dtype, self.threads = architecture, dtype, threads
        self.parts: dict[str, dict[str, np.ndarray]] = {}
        for name, array in arrays.items():
            part, _, key = name.rpartition(".")
            self.parts.setdefault(part, {})[key] = array
        self.units = -(-architecture.hidden_size // 16) * 16
        self.pool = ThreadPoolExecutor(threads)
        # Directions of a layer may be one job more than there are threads.
        self.shared, self.own = Work(), [Work() for _ in range(threads + 1)]
        self.since: tuple[int, float] | None = None  # what `profile` last saw: both clocks
        self.seconds = 0.0  # in `forward`

    def upload(self, spectrograms: np.ndarray, lengths: np.ndarray) -> Any:
        return spectrograms, np.asarray(lengths, np.int64)

    def forward(self, batch: Any) -> Any:
        start = time.perf_counter()
        spectrograms, self.given = batch
        self.spectrograms = spectrograms
        self.lengths = (self.given - 1) // 2 + 1
        count = len(self.lengths)
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])
        rows = int(self.starts[-1])
        self.inputs = self.a.rnn_input
        # Threads may be in different layers at a time: the first has an input of its own.
        self.x = [
            self.shared.get(name, rows * size, self.dtype)[: rows * size]
            for name, size in (("first", self.inputs), ("x", self.units))
        ]
        self.x_scale = self.shared.get("x_scale", rows, np.float32)[:rows]
        sides = 1 + self.a.bidirectional
        self.outs = [
            self.shared.get(f"out{side}", rows * self.units, np.float32)[: rows * self.units]
            .reshape(rows, self.units) for side in range(sides)
        ]  # fmt: skip
        self.result = np.zeros((count, int(self.lengths.max()), self.a.classes), np.float32)
        order = np.argsort(-self.lengths, kind="stable")
        if count >= ALONE * self.threads or self.threads == 1:
            # Every thread takes its own utterances through the whole network.
            self._together(self._whole, dealt(order, self.threads))
        else:
            # Threads share the utterances, and the directions of a layer.
            parts = dealt(order, self.threads)
            self._together(self._convolve, parts)
            groups = max(1, -(-self.threads // sides))
            teams = dealt(order, groups)
            for number in range(self.a.hidden_layers):
                if number:
                    self._together(lambda p, w, n=number: self._between(n, p, w), parts)
                jobs = [(side, team) for team in teams for side in range(sides)]
                self._together(lambda job, w, n=number: self._layer(n, *job, w), jobs)
            self._together(self._finish, parts)
        self.seconds += time.perf_counter() - start
        return self.result, self.lengths.astype(np.int32)

    def synchronize(self) -> None:
        """The CPU computes in `forward`."""

    def download(self, result: Any) -> tuple[np.ndarray, np.ndarray]:
        return result

    def profile(self) -> dict[str, float]:
        from deepspeech2 import kernels

        if platform.machine().lower() not in ("x86_64", "amd64"):
            return {}  # kernels.lap has no clock there
        clock, seconds = int(kernels.started(np.zeros(1, np.int64))), time.perf_counter()
        spent = np.sum([work.spent for work in self.own], axis=0)
        found = {}
        if self.since is not None:
            unit = (seconds - self.since[1]) / (clock - self.since[0])
            found = dict(zip(kernels.LAPS, (spent * unit / self.threads).tolist()))
            found["waiting for other threads"] = self.seconds - sum(found.values())
        for work in self.own:
            work.spent = np.zeros(len(kernels.LAPS), np.int64)
        self.since, self.seconds = (clock, seconds), 0.0
        return found

    def close(self) -> None:
        self.pool.shutdown()

    def _together(self, function, jobs) -> None:
        """Run function(job, work space) for all jobs, no more of them than threads at a time."""
        if len(jobs) == 1 or self.threads == 1:
            for job in jobs:
                function(job, self.own[0])
        else:
            list(self.pool.map(function, jobs, self.own))

    def _whole(self, members, work) -> None:
        self._convolve(members, work)
        for number in range(self.a.hidden_layers):
            if number:
                self._between(number, members, work)
            for side in range(1 + self.a.bidirectional):
                self._layer(number, side, members, work)
        self._finish(members, work)

    def _convolve(self, members, work) -> None:
        from deepspeech2.convolutions import convolutions
        from deepspeech2.kernels import CHANNELS, CONV_STEP, SUMS

        bins = self.a.bins
        one, two = self.parts["conv.0"], self.parts["conv.1"]
        finer = np.uint16 if self.dtype == np.uint8 else self.dtype  # packing.FIRST
        sums = np.int32 if self.dtype == np.uint8 else np.float32
        for b in members:
            frames, start = int(self.lengths[b]), int(self.starts[b])
            wide = -(-frames // CONV_STEP) * CONV_STEP
            first = (bins - 1) // 2 + 1
            x = self.x[0][start * self.inputs : (start + frames) * self.inputs]
            convolutions(
                self.spectrograms[b, 0, :, : self.given[b]], frames,
                one["weights"], one["zero"], one["scale"], one["shift"],
                two["weights"], two["zero"], two["scale"], two["shift"],
                work.get("plane", bins * (2 * wide + 12), finer),
                work.get("product_1", SUMS, np.float32),
                work.get("floats", first * wide * CHANNELS, np.float32),
                work.get("plane_2", first * (wide + 10) * CHANNELS, self.dtype),
                work.get("product", SUMS, sums),
                work.get("after", frames * self.inputs, np.float32),
                x, self.x_scale[start : start + frames], work.spent,
            )  # fmt: skip

    def _layer(self, number: int, side: int, members, work) -> None:
        from deepspeech2 import kernels, layers

        p = self.parts[f"rnn.{number}.{side}"]
        n, units, panels = len(members), self.units, self.units // 16
        slots = layers.CHUNK + n
        ahead = work.get("ahead", slots * 4 * units, np.float32)[: slots * 4 * units]
        layers.layer(
            KINDS[self.a.rnn_type], side, members, self.lengths, self.starts,
            self.x[number > 0], self.x_scale, units,
            p["w_in"], p["in_zero"], p["in_scale"], p["bias"],
            p["w_rec"], p["rec_zero"], p["rec_scale"],
            ahead.reshape(panels, slots, 64),
            work.get("hidden", n * units, self.dtype),
            work.get("state", n * units, np.float32)[: n * units].reshape(panels, n, 16),
            work.get("product", kernels.SUMS, np.int32 if self.dtype == np.uint8 else np.float32),
            self.outs[side], work.spent,
        )  # fmt: skip

    def _between(self, number: int, members, work) -> None:
        from deepspeech2 import layers

        p = self.parts[f"between.{number}"]
        for b in members:
            first = int(self.starts[b])
            layers.between(
                first, first + int(self.lengths[b]), self.outs[0], self.outs[-1],
                self.a.bidirectional, p["scale"], p["shift"], self.x[1], self.x_scale, work.spent,
            )  # fmt: skip

    def _finish(self, members, work) -> None:
        from deepspeech2 import layers

        p = self.parts["head"]
        for b in members:
            first = int(self.starts[b])
            last = first + int(self.lengths[b])
            if not self.a.bidirectional:
                layers.look_ahead(first, last, self.outs[0], self.parts["look_ahead"]["weights"])
            layers.head(
                first, last, self.outs[0], self.outs[-1], self.a.bidirectional,
                p["weights"], p["bias"], self.a.classes, self.result[b], work.spent,
            )  # fmt: skip
