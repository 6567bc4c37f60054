"""What a session returns for batches, utterance by utterance."""

import numpy as np
import pytest
from deepspeech2.cli import UserError
from deepspeech2.engines.run import infer
from deepspeech2.features.batches import Batches


class Odd:
    """A session whose output lengths are not what they should be."""

    def __init__(self, length):
        self.length = length

    def upload(self, spectrograms, lengths):
        return len(lengths)

    def forward(self, rows):
        return rows

    def synchronize(self):
        pass

    def download(self, rows):
        return np.ones((rows, 4, 3), np.float32), np.full(rows, self.length, np.int32)


class OneUtterance:
    """A stand-in for a FeatureSet with one utterance."""

    utterances = ({"id": "u", "frames": 7},)
    bins, frames_max = 161, 7

    def __len__(self):
        return 1

    def load(self, position):
        return np.zeros((161, 7), np.float32)


def test_impossible_output_lengths_are_refused():
    batches = Batches(OneUtterance(), 2, "batch")
    assert [p.shape for _, p in infer(Odd(3), batches)] == [(3, 3)]
    for length in (0, 5, -1):
        with pytest.raises(UserError, match=f"utterance u.*{length}"):
            list(infer(Odd(length), batches))
