"""Tiny networks, batches for them, and what comes out, for tests of networks and engines."""

import numpy as np
import torch
from deepspeech2.model import network
from deepspeech2.model.architecture import Architecture
from helpers import TINY, tiny_weights

ARCHITECTURES = [
    TINY,
    Architecture(161, 29, "gru", 12, 3, True),
    Architecture(161, 29, "rnn", 12, 2, True),
    Architecture(161, 29, "lstm", 12, 2, False, 5),
    Architecture(81, 7, "gru", 3, 1, False, 1),
]


def make(architecture, form):
    """The network with `tiny_weights`, in a form."""
    net = network.DeepSpeech2(architecture, form)
    state = {k: torch.from_numpy(v) for k, v in tiny_weights(architecture).items()}
    missing = net.load_state_dict(state, strict=False)
    assert all(key.endswith("num_batches_tracked") for key in missing.missing_keys)
    assert not missing.unexpected_keys
    return net.eval().requires_grad_(False)


def batch(size, frames, bins=161, ordered=True):
    """Spectrograms with zeros past each length, and mixed lengths, the first the longest."""
    random = np.random.default_rng(size)
    lengths = random.integers(1, frames + 1, size)
    lengths[0] = frames
    lengths = np.sort(lengths)[::-1] if ordered else lengths
    x = random.standard_normal((size, 1, bins, frames)).astype("f4")
    for row, length in enumerate(lengths):
        x[row, ..., length:] = 0
    return torch.from_numpy(x), torch.from_numpy(lengths.astype("i4"))


def valid(result):
    """Of each row, the probabilities that count."""
    probabilities, lengths = result
    return [probabilities[row, :length] for row, length in enumerate(lengths)]


def run(session, x, lengths):
    """What a session makes of a batch."""
    result = session.forward(session.upload(x.numpy(), lengths.numpy()))
    session.synchronize()
    return session.download(result)
