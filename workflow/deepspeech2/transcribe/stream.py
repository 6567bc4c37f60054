"""Transcribes sound as it comes, with a network whose recurrent layers have one direction.

What it computes depends on the samples alone, not on the portions in which they come: it takes STEP
frames of the spectrogram at a time, and the rest at the end. Convolutions keep the frames that they
still need, recurrent layers their state.

An utterance's spectrogram is normalised by the mean and deviation of all of it; here, by those of
the frames so far, the last MEMORY seconds of them mostly, and of a prior that counts as PRIOR
seconds.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from deepspeech2.corpus.audio import SAMPLE_RATE
from deepspeech2.features import spectrogram
from deepspeech2.model.network import CEILING, DeepSpeech2, over_features
from deepspeech2.scoring import decoders, times
from deepspeech2.scoring.times import Span

STEP = 10  # frames of the spectrogram
# Of the log spectrogram of AN4's 948 training recordings; what they count, and what the past does.
MEAN, DEVIATION = 0.0646, 0.1801
PRIOR, MEMORY = 2.0, 10.0  # seconds
# Seconds without a letter behind which a word is at its end, and of letters without a space.
LAST, LONGEST = 1.0, 20.0


class Features:
    """Samples to frames of the normalised log spectrogram, of which each is computed once."""

    def __init__(self, settings: spectrogram.Spectrogram):
        self.settings = settings
        # Frames that are computed again, as they reach before the samples that are kept.
        self.again = -(-settings.n_fft // 2 // settings.hop) + 1
        self.samples = np.zeros(0, np.float32)
        self.done = self.kept = 0  # frames computed, and the frame that the kept samples begin with
        per_second = settings.sample_rate / settings.hop
        weight = PRIOR * per_second
        self.prior = np.array([weight, weight * MEAN, weight * (DEVIATION**2 + MEAN**2)])
        self.decay = 1 - 1 / (MEMORY * per_second)
        self.sums = np.zeros(3)  # frames, means and mean squares of them, the older the less

    def feed(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """Features (STEP, bins) float32 that can be computed with these samples (n,) float32."""
        self.samples = np.concatenate([self.samples, samples])
        while len(self.samples) >= (needed := self._needed()):
            yield self._next(self.samples[:needed], STEP)

    def _needed(self) -> int:
        """How many of the samples that are kept the next STEP frames reach over."""
        begin = (self.done - self.kept + STEP - 1) * self.settings.hop - self.settings.n_fft // 2
        return begin + self.settings.n_fft

    def close(self) -> np.ndarray:
        """The last features."""
        if len(self.samples) <= self.settings.n_fft // 2:  # too few to be reflected
            return np.zeros((0, self.settings.bins), np.float32)
        return self._next(self.samples, None)

    def _next(self, samples: np.ndarray, count: int | None) -> np.ndarray:
        first = self.done - self.kept
        last = None if count is None else first + count
        found = np.log1p(np.abs(spectrogram.stft(samples, self.settings)[first:last]))
        self.done += len(found)
        kept = max(0, self.done - self.again)
        self.samples = self.samples[(kept - self.kept) * self.settings.hop :]
        self.kept = kept
        return np.array([self._normalised(frame) for frame in found]).reshape(found.shape)

    def _normalised(self, frame: np.ndarray) -> np.ndarray:
        """A frame (bins,) by the statistics up to it."""
        values = frame.astype(np.float64)
        self.sums = self.sums * self.decay + [1, values.mean(), np.square(values).mean()]
        count, total, squares = self.sums + self.prior
        mean = total / count
        return ((values - mean) / np.sqrt(squares / count - mean**2)).astype(np.float32)


class Stream:
    """A network that gets samples at 16 kHz in portions, and returns posteriors (n, classes)."""

    def __init__(self, network: DeepSpeech2, settings: spectrogram.Spectrogram):
        if network.architecture.bidirectional:
            raise ValueError("a network of both directions hears everything first")
        self.network, self.features = network, Features(settings)
        layers = list(network.conv.seq_module)
        self.layers = layers[:3], layers[3:]
        # What each part of the network still needs of what it was given.
        self.waiting: list[Tensor | None] = [None, None]
        self.states: list = [None] * network.architecture.hidden_layers
        self.ahead: Tensor | None = None

    def feed(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """Posteriors of the frames that can be computed with these samples (n,) float32."""
        for features in self.features.feed(samples):
            yield self._network(features, False)

    def close(self) -> Iterator[np.ndarray]:
        """Posteriors of the last frames."""
        yield self._network(self.features.close(), True)

    def none(self) -> np.ndarray:
        """Posteriors of no frames."""
        return np.zeros((0, self.network.architecture.classes), np.float32)

    @torch.inference_mode()
    def _network(self, features: np.ndarray, last: bool) -> np.ndarray:
        x = torch.from_numpy(features).t()[None, None]
        for number, layers in enumerate(self.layers):
            x = self._convolved(number, layers, x, last)
            if not x.numel():
                return self.none()
        x = x.flatten(1, 2).permute(2, 0, 1)  # (T', 1, features)
        for number, holder in enumerate(self.network.rnns):
            if number:
                x = over_features(holder.batch_norm.module, x)
            x, self.states[number] = holder.rnn(x, self.states[number])
        x = self._looked_ahead(x, last)
        return torch.softmax(self.network.classes(x), dim=-1)[:, 0].numpy()

    def _convolved(self, number: int, layers: list, x: Tensor, last: bool) -> Tensor:
        """A convolution, its normalisation and rectifier, of what waits and x (1, C, bins, T)."""
        convolution, norm, rectifier = layers
        before = self.waiting[number]
        padding = convolution.padding[1]
        if before is None:
            before = x.new_zeros(*x.shape[:3], padding)
        x = torch.cat([before, x], 3)
        x = functional.pad(x, (0, padding)) if last else x
        stride, kernel = convolution.stride[1], convolution.kernel_size[1]
        count = max(0, (x.size(3) - kernel) // stride + 1)
        self.waiting[number] = x[..., count * stride :]
        if not count:
            return x[..., :0]
        size = convolution.padding[0], 0
        x = torch.conv2d(x, convolution.weight, convolution.bias, convolution.stride, size)
        return rectifier(norm(x))

    def _looked_ahead(self, x: Tensor, last: bool) -> Tensor:
        """The lookahead convolution of what waits and x (T', 1, units)."""
        context = self.network.architecture.lookahead_context
        x = x if self.ahead is None else torch.cat([self.ahead, x])
        x = functional.pad(x, (0, 0, 0, 0, 0, context - 1)) if last else x
        count = max(0, len(x) - context + 1)
        self.ahead = x[count:]
        if not count:
            return x[:0]
        x = self.network.lookahead[0].conv(x.permute(1, 2, 0)).permute(2, 0, 1)
        return functional.hardtanh(x, 0.0, CEILING)


class Heard(NamedTuple):
    """Words that are at their end, the text of the one that is not, and how old the last word is.

    `latency` is from the last word's end until it was found, in seconds: the sound that came
    meanwhile, and the time that computing took.
    """

    words: list[Span]
    partial: str
    latency: float


def transcribe(
    portions: Iterable[np.ndarray], stream: Stream, labels: list[str]
) -> Iterator[Heard]:
    """Words of sound that comes in portions (n,) float32 at 16 kHz: greedy decoding."""
    decoder = decoders.create(decoders.Settings("greedy", {}), labels)
    frame = times.seconds_per_frame(stream.features.settings.window_stride)
    waiting, before = stream.none(), 0  # posteriors, and how many there were before them
    heard = 0.0
    for portion in itertools.chain(portions, [None]):
        came, last = time.perf_counter(), portion is None
        heard += 0 if last else len(portion) / SAMPLE_RATE
        for posteriors in stream.close() if last else stream.feed(portion):
            waiting = np.concatenate([waiting, posteriors])
            decoded = decoder(waiting)
            count = len(decoded.text) if last else _final(decoded, len(waiting), frame)
            part = decoders.Decoded(
                decoded.text[:count],
                decoded.starts[:count] + before,
                decoded.ends[:count] + before,
                decoded.confidences[:count],
            )
            words = times.words(part, frame, heard)
            used = int(decoded.ends[count - 1]) if count else 0 if decoded.text else len(waiting)
            waiting, before = waiting[used:], before + used
            latency = heard - words[-1].end + time.perf_counter() - came if words else 0.0
            yield Heard(words, decoded.text[count:].strip(), latency)


def _final(decoded: decoders.Decoded, frames: int, frame: float) -> int:
    """How many characters of `frames` frames belong to words that are at their end.

    These end with a space, or lie LAST seconds back and nothing came since.
    """
    ends = decoded.ends
    if (len(ends) and ends[-1] + LAST / frame <= frames) or frames * frame > LONGEST:
        return len(ends)
    spaces = [n for n, letter in enumerate(decoded.text) if letter.isspace() and ends[n] < frames]
    return spaces[-1] + 1 if spaces else 0
