"""Runs the packed weights of the backend `native` on batches, with some threads."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from deepspeech2 import engines
from deepspeech2.engines.native import convolutions, kernels, layers, layout, packing
from deepspeech2.engines.native.instructions import sequence
from deepspeech2.model.architecture import CHANNELS, Architecture, output_frames

# From so many on, each thread computes its own utterances alone, and none waits for others.
MIN_UTTERANCES_PER_THREAD = 16


def deal_by_length(longest_first: np.ndarray, parts: int) -> list[np.ndarray]:
    """Utterances dealt out to so many parts, there and back: about equally many frames for each.

    There are fewer parts where there are fewer utterances; each is longest first, too.
    """
    turn = np.arange(len(longest_first)) % (2 * parts)
    part = np.minimum(turn, 2 * parts - 1 - turn)
    return [longest_first[part == n] for n in range(min(parts, len(longest_first)))]


class Workspace:
    """Arrays of one thread by name, kept from batch to batch."""

    def __init__(self):
        self._buffers: dict[str, np.ndarray] = {}
        self.spent = np.zeros(0, np.int64)  # by kernels.LAPS, where time is counted

    def array(self, name: str, dtype: Any, *shape: int) -> np.ndarray:
        """An array whose contents are left from before."""
        size = int(np.prod(shape))
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < size:
            buffer = self._buffers[name] = layout.empty(dtype, size)
        return buffer[:size].reshape(shape)

    def sums(self, layer: layout.Weights) -> np.ndarray:
        """Those of a tile: (layout.SUMS,)."""
        return self.array(f"sums of {layer.zero.dtype}", layer.zero.dtype, layout.SUMS)


class Session(engines.Session):
    """The kernels with the arrays of packing.pack; `dtype` is of layout.TYPES."""

    def __init__(self, arrays, architecture: Architecture, dtype: Any, threads: int):
        self._architecture, self._dtype, self._threads = architecture, dtype, threads
        self._weights = packing.unpack(arrays, sequence("int8").offset)
        self._units = layout.round_up(architecture.hidden_size, layout.LANES)
        self._directions = range(1 + architecture.bidirectional)
        self._pool = ThreadPoolExecutor(threads)
        # Directions of a layer may be one job more than there are threads.
        self._shared, self._own = Workspace(), [Workspace() for _ in range(threads + 1)]
        self._profiled: tuple[int, float] | None = None  # both clocks at the last `profile`
        self._seconds = 0.0  # in `forward`, since then

    def upload(self, spectrograms: np.ndarray, lengths: np.ndarray) -> Any:
        return np.ascontiguousarray(spectrograms, np.float32), np.asarray(lengths, np.int64)

    def forward(self, batch: Any) -> Any:
        start = time.perf_counter()
        work = self._batch(*batch)
        longest_first = np.argsort(-work.frames, kind="stable")
        shares = deal_by_length(longest_first, self._threads)
        if self._threads == 1 or len(longest_first) >= MIN_UTTERANCES_PER_THREAD * self._threads:
            self._run(partial(self._transcribe, work), shares)
        else:
            teams = deal_by_length(longest_first, -(-self._threads // len(self._directions)))
            by_direction = [(side, team) for team in teams for side in self._directions]
            if len(longest_first) < self._threads:
                self._convolve_together(work, longest_first)
            else:
                self._run(partial(self._convolve, work), shares)
            for number in range(self._architecture.hidden_layers):
                if number:
                    self._run(partial(self._normalise, work, number), shares)
                self._run(partial(self._run_direction, work, number), by_direction)
            self._run(partial(self._classify, work), shares)
        self._seconds += time.perf_counter() - start
        return work.probabilities, work.frames.astype(np.int32)

    def synchronize(self) -> None:
        """The CPU computes in `forward`."""

    def download(self, result: Any) -> tuple[np.ndarray, np.ndarray]:
        return result

    def profile(self) -> dict[str, float]:
        if platform.machine().lower() not in ("x86_64", "amd64", "aarch64"):
            return {}  # kernels.lap has no clock there
        clock, seconds = int(kernels.started(np.zeros(1, np.int64))), time.perf_counter()
        spent = np.sum([space.spent for space in self._own], axis=0)
        by_part = {}
        if self._profiled is not None:
            unit = (seconds - self._profiled[1]) / (clock - self._profiled[0])
            by_part = dict(zip(kernels.LAPS, (spent * unit / self._threads).tolist()))
            by_part["waiting for other threads"] = self._seconds - sum(by_part.values())
        for space in self._own:
            space.spent = np.zeros(len(kernels.LAPS), np.int64)
        self._profiled, self._seconds = (clock, seconds), 0.0
        return by_part

    def close(self) -> None:
        self._pool.shutdown()

    def _batch(self, spectrograms: np.ndarray, lengths: np.ndarray) -> layout.Batch:
        """A batch before it is computed. Its arrays, but for the probabilities, are reused."""
        array, frames = self._shared.array, output_frames(lengths)
        ends = np.cumsum(frames)
        rows, classes = int(ends[-1]), self._architecture.classes
        return layout.Batch(
            *(spectrograms, lengths, frames, ends - frames),
            first_input=array("first_input", self._dtype, rows, self._architecture.rnn_input),
            input=array("input", self._dtype, rows, self._units),
            input_scale=array("input_scale", np.float32, rows),
            outputs=array("outputs", np.float32, len(self._directions), rows, self._units),
            probabilities=np.zeros((len(frames), int(frames.max()), classes), np.float32),
        )

    def _run(self, function: Callable, jobs: Sequence) -> None:
        """Run function(job, work space) for all jobs, no more of them than threads at a time."""
        if len(jobs) == 1 or self._threads == 1:
            for job in jobs:
                function(job, self._own[0])
        else:
            list(self._pool.map(function, jobs, self._own))

    def _transcribe(self, batch: layout.Batch, members: np.ndarray, space: Workspace) -> None:
        """The whole network for the utterances `members`, as are its parts below."""
        self._convolve(batch, members, space)
        for number in range(self._architecture.hidden_layers):
            if number:
                self._normalise(batch, number, members, space)
            for side in self._directions:
                self._run_direction(batch, number, (side, members), space)
        self._classify(batch, members, space)

    def _convolve(self, batch, members, space) -> None:
        """Both convolutions of `members`, longest first, one after the other."""
        between = self._between(batch, members, space)
        for b in members:
            everything = 0, int(batch.frames[b])
            self._convolve_first(batch, b, between, everything, space)
            self._convolve_second(batch, b, between, everything, space)

    def _convolve_together(self, batch, members) -> None:
        """The same by all threads, each with a part of an utterance's frames."""
        between = self._between(batch, members, self._shared)
        for b in members:
            frames = int(batch.frames[b])
            size = layout.round_up(-(-frames // self._threads), layout.CONV_ROWS)
            parts = [(start, min(start + size, frames)) for start in range(0, frames, size)]
            self._run(partial(self._convolve_first, batch, b, between), parts)
            self._run(partial(self._convolve_second, batch, b, between), parts)

    def _between(self, batch, members, space) -> np.ndarray:
        """What the first convolution makes of an utterance, for the longest of them."""
        bins = layout.GEOMETRY_1.bins(self._architecture.bins)
        frames = int(batch.frames[members[0]])
        return space.array("between", np.float32, bins, frames * CHANNELS)

    def _convolve_first(self, batch, b, between, part, space) -> None:
        # Never int8: the first convolution's activations have the type of its weights.
        layer, frames = self._weights["conv.0"], between.shape[1] // CHANNELS
        size = self._architecture.bins, layout.GEOMETRY_1.width(frames)
        plane = space.array("plane_1", layer.weights.dtype, *size)
        sums = space.sums(layer)
        convolutions.convolve_first(b, *part, batch, layer, plane, sums, between, space.spent)

    def _convolve_second(self, batch, b, between, part, space) -> None:
        frames, layer = between.shape[1] // CHANNELS, self._weights["conv.1"]
        size = len(between), layout.GEOMETRY_2.width(frames)
        plane = space.array("plane_2", self._dtype, *size)
        output = space.array("output", np.float32, frames, self._architecture.rnn_input)
        convolutions.convolve_second(
            b, *part, batch, layer, plane, space.sums(layer), between, output, space.spent
        )

    def _run_direction(self, batch, number, job, space) -> None:
        side, members = job
        x = batch.input if number else batch.first_input
        of_input, of_state = (self._weights[f"rnn.{number}.{side}.{w}"] for w in ("input", "state"))
        layers.run_direction(
            layout.CELLS[self._architecture.rnn_type], side, members, batch, x, of_input, of_state,
            self._layer_space(len(members), x.shape[1], space.sums(of_state), space), space.spent,
        )  # fmt: skip

    def _layer_space(self, count, inputs, sums, space) -> layout.LayerSpace:
        array, panels = space.array, self._units // layout.LANES
        whole = layout.VECTOR // np.dtype(self._dtype).itemsize  # a cache line
        return layout.LayerSpace(
            array("gates", np.float32, panels, layout.CHUNK + count, layout.PANEL),
            array("rows", np.int64, layout.CHUNK + count), array("active", np.int64, layout.CHUNK),
            array("gathered", self._dtype, layout.CHUNK + count, layout.round_up(inputs, whole)),
            array("state", self._dtype, count, layout.round_up(self._units, whole)),
            array("state_scale", np.float32, count),
            array("memory", np.float32, panels, count, layout.LANES), sums,
        )  # fmt: skip

    def _normalise(self, batch, number, members, space) -> None:
        layers.normalise(members, batch, self._weights[f"norm.{number}"], space.spent)

    def _classify(self, batch, members, space) -> None:
        layers.classify(members, batch, self._weights["head"], space.spent)
