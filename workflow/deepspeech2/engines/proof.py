"""Whether a timed run computes what the accuracy run of the same engine did (MLPerf's TEST01).

For some utterances, drawn for each batch size anew, every output of the timed run is compared with
the accuracy run's posteriors, between the batches and outside of what is timed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from deepspeech2.cli import Input, UserError
from deepspeech2.engines import Backend
from deepspeech2.features.batches import FeatureSet
from deepspeech2.files import read_sealed, remedy
from deepspeech2.model import posteriors as posteriors_file

SHARE = 0.1  # of the utterances, at least
# The largest difference of two probabilities by precision, chosen: other numbers of threads add in
# another order, by which fp32 was seen to differ by 3e-7, and coarser numbers may round otherwise.
TOLERANCES = {"fp32": 1e-4, "fp16": 0.02, "bf16": 0.1, "int8": 0.1}


class Proof:
    """The expected posteriors of some utterances of a set, and what came of comparing with them."""

    def __init__(self, posteriors: Input, index: Input, features: FeatureSet, batch_size: int):
        if read_sealed(index)["run"]["features_sha256"] != features.index_sha256:
            raise UserError(f"{index}: made from other features; {remedy(index)}")
        count = math.ceil(SHARE * len(features))
        drawn = np.random.default_rng(batch_size).choice(len(features), count, replace=False)
        self._names = [utterance["id"] for utterance in features.utterances]
        wanted = {self._names[position]: position for position in drawn.tolist()}
        self._expected = {
            wanted[name]: numbers
            for name, numbers in posteriors_file.read(posteriors, index)
            if name in wanted
        }
        if len(self._expected) < count:
            raise UserError(f"{index}: lacks utterances of these features; {remedy(index)}")
        self._outputs, self._largest, self._where = 0, 0.0, ""

    def compare(
        self, positions: Sequence[int], probabilities: np.ndarray, lengths: np.ndarray
    ) -> None:
        """Compare those of a batch's outputs, as `Session.download` returns them, that were drawn.

        Another number of frames counts as a difference of 1, the largest of two probabilities.
        """
        for row, position in enumerate(positions):
            expected = self._expected.get(position)
            if expected is None:
                continue
            found = probabilities[row, : lengths[row]]
            difference = 1.0
            if found.shape == expected.shape:
                difference = float(np.abs(found - expected).max(initial=0))
            self._outputs += 1
            if not difference <= self._largest:  # so that NaN counts, too
                self._largest = difference if math.isfinite(difference) else 1.0
                self._where = self._names[position]

    def result(self, backend: Backend) -> dict:
        """What was compared, the largest difference and where, and what is wrong with it, if so."""
        tolerance = 0.0 if backend.same_bits else TOLERANCES[backend.engine.precision]
        wrong = ""
        if self._largest > tolerance:
            wrong = (
                f"the timed run's posteriors differ from the accuracy run's by {self._largest:.1e} "
                f"in {self._where}, above {tolerance:g}"
            )
        return {
            "utterances": len(self._expected),
            "outputs": self._outputs,
            "largest_difference": self._largest,
            "tolerance": tolerance,
            "wrong": wrong,
        }
