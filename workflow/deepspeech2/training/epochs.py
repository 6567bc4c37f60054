"""What an epoch of training consists of: which utterances, spliced and changed how, in batches.

A plan is drawn from the seed and the number of the epoch alone, so that a run that was interrupted
goes on with the very same batches. `Batches` then makes the batches of a plan, in any process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from deepspeech2.corpus import audio, labels
from deepspeech2.corpus.utterance import Utterance
from deepspeech2.features import spectrogram
from deepspeech2.features.spectrogram import Spectrogram
from deepspeech2.model.architecture import output_frames
from deepspeech2.scoring import forced
from deepspeech2.training.augment import Augmentation, change_samples, change_spectrogram

FADE = 80  # samples, 5 ms, over which the parts of a spliced utterance fade in and out
MAX_RUN = 4  # words that a spliced utterance takes over from one recording in a row


class Recording(NamedTuple):
    """An utterance to train on: samples in its recording, and the dataset that it is from."""

    utterance: Utterance
    samples: int
    dataset: str

    @property
    def text(self) -> str:
        """What is said in it."""
        return self.utterance.text

    @property
    def voice(self) -> tuple[str, str]:
        """Its dataset and speaker."""
        return self.dataset, self.utterance.speaker


class Part(NamedTuple):
    """A stretch of a recording: samples `start` to `end`, and what is said there."""

    recording: int
    start: int
    end: int
    text: str


class Item(NamedTuple):
    """One utterance of an epoch: its parts, speed, frames, and the seed of its other draws."""

    parts: tuple[Part, ...]
    speed: float
    frames: int
    seed: tuple[int, ...]

    @property
    def text(self) -> str:
        """What is said in it."""
        return " ".join(part.text for part in self.parts)


class Plan(NamedTuple):
    """How epochs are drawn: shares of every dataset and of spliced ones in it, batches' size.

    `frames_per_batch` bounds the frames of a batch, padding included.
    """

    shares: Mapping[str, float]
    splices: Mapping[str, float]
    frames_per_batch: int
    spectrogram: Spectrogram
    augmentation: Augmentation
    seed: int


def draw(
    plan: Plan, epoch: int, recordings: Sequence[Recording], cuts: Mapping[int, Sequence[int]]
) -> list[list[Item]]:
    """The batches of an epoch. `cuts` has the word boundaries of recordings that may be spliced."""
    rng = np.random.default_rng([plan.seed, epoch])
    chosen: list[int] = []
    for name, share in sorted(plan.shares.items()):
        of_dataset = [i for i, recording in enumerate(recordings) if recording.dataset == name]
        while share > 0:  # a share of 1.5 takes every utterance once and half of them again
            count = round(len(of_dataset) * min(share, 1))
            chosen += rng.permutation(of_dataset)[:count].tolist()
            share -= 1
    by_speaker: dict[tuple[str, str], list[int]] = {}
    for i in sorted(cuts):
        if recordings[i].utterance.speaker:
            by_speaker.setdefault(recordings[i].voice, []).append(i)
    items = []
    for number, i in enumerate(chosen):
        recording = recordings[i]
        parts = (Part(i, 0, recording.samples, recording.text),)
        others = by_speaker.get(recording.voice, []) if i in cuts else []
        if len(others) > 1 and rng.random() < plan.splices.get(recording.dataset, 0):
            parts = splice(i, others, recordings, cuts, rng)
        speed = float(rng.uniform(*plan.augmentation.speed))
        samples = sum(part.end - part.start for part in parts)
        frames = plan.spectrogram.frames(int(np.ceil(samples / speed)))
        if output_frames(frames) > needed_frames(" ".join(part.text for part in parts)):
            items.append(Item(parts, speed, frames, (plan.seed, epoch, number)))
    items.sort(key=lambda item: (-item.frames, item.seed))
    batches = batch(items, plan.frames_per_batch)
    return [batches[i] for i in rng.permutation(len(batches))]


def needed_frames(text: str) -> int:
    """Frames that CTC needs for a text: one for each character, and a blank between equal ones."""
    return len(text) + sum(a == b for a, b in zip(text, text[1:]))


def splice(
    first: int,
    others: Sequence[int],
    recordings: Sequence[Recording],
    cuts: Mapping[int, Sequence[int]],
    rng: np.random.Generator,
) -> tuple[Part, ...]:
    """Runs of words from recordings of one speaker, about as many words as `first` has."""
    wanted = len(recordings[first].text.split())
    parts: list[Part] = []
    found = 0
    while found < wanted:
        i = int(rng.choice(others)) if parts else first
        words = recordings[i].text.split()
        length = int(rng.integers(1, min(MAX_RUN, len(words), wanted - found) + 1))
        start = int(rng.integers(0, len(words) - length + 1))
        text = " ".join(words[start : start + length])
        parts.append(Part(i, cuts[i][start], cuts[i][start + length], text))
        found += length
    return tuple(parts)


def batch(items: Sequence[Item], frames_per_batch: int) -> list[list[Item]]:
    """Items in descending order of frames, cut into batches of at most so many padded frames."""
    batches: list[list[Item]] = []
    for item in items:
        if batches and (len(batches[-1]) + 1) * batches[-1][0].frames <= frames_per_batch:
            batches[-1].append(item)
        else:
            batches.append([item])
    return batches


class Batches:
    """The batches of a plan as arrays, by number; a map-style dataset of torch's DataLoader.

    Each is spectrograms (B, 1, bins, T) float32, zeros on the right, the longest first; lengths
    (B,) int32 frames; targets, all label ids in a row, int64; and target lengths (B,) int64.
    """

    def __init__(
        self,
        batches: Sequence[Sequence[Item]],
        recordings: Sequence[Recording],
        alphabet: Sequence[str],
        spectrogram: Spectrogram,
        augmentation: Augmentation,
    ):
        self.batches, self.recordings, self.alphabet = batches, recordings, alphabet
        self.spectrogram, self.augmentation = spectrogram, augmentation

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        found = [(self.features(item), item) for item in self.batches[number]]
        found.sort(key=lambda pair: -pair[0].shape[1])
        lengths = np.array([features.shape[1] for features, _ in found], np.int32)
        spectrograms = np.zeros((len(found), 1, self.spectrogram.bins, lengths[0]), np.float32)
        for row, (features, _) in enumerate(found):
            spectrograms[row, 0, :, : features.shape[1]] = features
        targets = [labels.encode(i.text, self.alphabet, True, "text")[0] for _, i in found]
        return (
            spectrograms,
            lengths,
            np.array([label for target in targets for label in target], np.int64),
            np.array([len(target) for target in targets], np.int64),
        )

    def features(self, item: Item) -> np.ndarray:
        """The spectrogram (bins, frames) of an item."""
        rng = np.random.default_rng(item.seed)
        parts = [read(self.recordings[p.recording])[p.start : p.end] for p in item.parts]
        samples = join(parts)
        samples = change_samples(samples, item.speed, self.augmentation, rng)
        features = spectrogram.compute(samples, self.spectrogram)
        return change_spectrogram(features, self.augmentation, rng)


def warm_up(spectrogram_settings: Spectrogram) -> None:
    """Use librosa once: it imports its parts then, which no process for batches need repeat."""
    noise = np.random.default_rng(0).standard_normal(audio.SAMPLE_RATE).astype(np.float32)
    samples = change_samples(noise, 1.1, Augmentation(), np.random.default_rng(0))
    spectrogram.compute(samples, spectrogram_settings)


def join(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Samples one after the other, each faded in and out where it meets another."""
    if len(parts) == 1:
        return parts[0]
    ramp = np.linspace(0, 1, FADE, dtype=np.float32)
    joined = [part.copy() for part in parts]
    for before, after in zip(joined, joined[1:]):
        if len(before) > FADE and len(after) > FADE:
            before[-FADE:] *= ramp[::-1]
            after[:FADE] *= ramp
    return np.concatenate(joined)


def word_cuts(posteriors: np.ndarray, targets: Sequence[int], space: int, samples: np.ndarray):
    """Where the words of an utterance can be cut apart: sample positions, one more than words.

    `posteriors` (T', classes) of the utterance, whose `targets` are aligned to them by the best CTC
    path. A cut is the quietest 10 ms between the last label of a word and the first of the next.
    """
    frames = forced.ctc_path(posteriors, targets)
    hop = len(samples) / len(posteriors)
    window = audio.SAMPLE_RATE // 100
    energy = np.convolve(np.square(samples, dtype=np.float64), np.ones(window), "same")
    cuts = [0]
    for i, target in enumerate(targets):
        if target == space:
            low = int((frames[i - 1][1] + 1) * hop)
            high = max(low + 1, int(frames[i + 1][0] * hop))
            cuts.append(low + int(energy[low:high].argmin()))
    return [*cuts, len(samples)]


def read(recording: Recording) -> np.ndarray:
    """The samples (n,) float32 of a recording."""
    return audio.to_float(audio.read(recording.utterance.audio).samples)
