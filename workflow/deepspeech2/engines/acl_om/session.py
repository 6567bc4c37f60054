"""Sessions of the backend `acl_om`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepspeech2 import engines
from deepspeech2.cli import UserError, log
from deepspeech2.engines import Shape
from deepspeech2.engines.ascend import plugin_errors
from deepspeech2.model.tensors import INPUTS

TYPES = (np.float32, np.int32)  # of the inputs


class Session(engines.Session):
    """Runs offline models, one for each width. Packed ones get their rows sorted by length.

    ais_bench compares an input's bytes with the model's, and nothing else, so what is fed is made
    and compared with the model's types and shapes here. `forward` returns when all is done, and
    copies in and out: the device's own time is in `notes` and `profile`.
    """

    def __init__(
        self, interface: type, number: int, models: Mapping[Path, Shape], packed: bool
    ) -> None:
        self.packed, self.profiled, self.notes = packed, 0.0, {}
        self.models: dict[int, tuple[Any, Shape]] = {}  # by frames
        try:
            for path, shape in models.items():
                with plugin_errors(f"{path}: ais_bench cannot load it"):
                    model = interface(number, str(path))
                    self.models[shape.frames] = model, shape
                    found = [(i.name, list(i.shape), _name(i.datatype)) for i in model.get_inputs()]
                wanted = [
                    (name, list(dims), np.dtype(kind).name)
                    for name, dims, kind in zip(INPUTS, dimensions(shape), TYPES)
                ]
                if found != wanted:
                    raise UserError(f"{path}: takes the inputs {found}, not {wanted}")
        except BaseException:
            self.close()
            raise

    def upload(self, spectrograms: np.ndarray, lengths: np.ndarray) -> Any:
        frames = spectrograms.shape[3]
        if frames not in self.models:
            known = ", ".join(map(str, self.models))
            raise UserError(f"nothing was compiled for {frames} frames, only for {known}")
        model, shape = self.models[frames]
        if (spectrograms.shape, lengths.shape) != dimensions(shape):
            raise UserError(
                f"a batch of {spectrograms.shape} with {len(lengths)} lengths, and the model was "
                f"compiled for {shape}"
            )
        order = np.argsort(-lengths, kind="stable") if self.packed else np.arange(len(lengths))
        feeds = [
            np.ascontiguousarray(value[order], kind)
            for value, kind in zip((spectrograms, lengths), TYPES)
        ]
        return model, feeds, order

    def forward(self, batch: Any) -> Any:
        model, feeds, order = batch
        with plugin_errors("the network does not run on the device"):
            return model.infer(feeds, "static"), order

    def synchronize(self) -> None:
        """ais_bench waits in `forward`."""

    def download(self, result: Any) -> tuple[np.ndarray, np.ndarray]:
        outputs, order = result
        shapes = [output.shape for output in outputs]
        if [len(shape) for shape in shapes] != [3, 1] or {s[0] for s in shapes} != {len(order)}:
            raise UserError(f"the model returned {shapes}, not probabilities and lengths")
        unsort = np.argsort(order)
        probabilities, lengths = (output[unsort] for output in outputs)
        return probabilities.astype(np.float32, copy=False), lengths.astype(np.int32, copy=False)

    def device_ms(self) -> list[float]:
        """Milliseconds of each execution so far, without copies, as ais_bench has them.

        Its older versions have numbers, and the newer ones when each began and ended.
        """
        times = []
        for model, _ in self.models.values():
            summary = model.summary() if hasattr(model, "summary") else model.sumary()
            for one in summary.exec_time_list:
                times.append(one if np.isscalar(one) else one[1] - one[0])
        return times

    def profile(self) -> dict[str, float]:
        """Seconds of the device since the last call."""
        before, self.profiled = self.profiled, sum(self.device_ms()) / 1000
        return {"device": self.profiled - before}

    def close(self) -> None:
        """Give the device back, where ais_bench can, and keep the device's mean time as a note."""
        try:
            if times := self.device_ms():
                self.notes = {"device_ms": round(float(np.mean(times)), 4), "runs": len(times)}
            for model, _ in self.models.values():
                getattr(model, "free_resource", int)()  # the older versions free what is forgotten
        except Exception as error:
            log.info("ais_bench: close failed (%s)", error)
        self.models = {}


def dimensions(shape: Shape) -> tuple[tuple[int, ...], ...]:
    """The dimensions of both inputs of a model that is made for `shape`."""
    return (shape.batch_size, 1, shape.bins, shape.frames), (shape.batch_size,)


def _name(kind: Any) -> str:
    """What numpy calls one of aclruntime's types, which print like dtype.float32."""
    return str(kind).rpartition(".")[2]
