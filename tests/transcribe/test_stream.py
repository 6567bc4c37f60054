"""A stream computes what the network computes, whatever the portions that it comes in."""

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT
from deepspeech2.features import spectrogram
from deepspeech2.model import network
from deepspeech2.model.architecture import Architecture
from deepspeech2.transcribe import stream as streams
from deepspeech2.transcribe.stream import Features, Stream
from helpers import LABELS, assert_one_line_error, run_stage, tone, write_safetensors

SETTINGS = spectrogram.Spectrogram()
LENGTHS = (0, 160, 161, 170, 320, 500, 1760, 1761, 5000, 15003, 16000)
PORTIONS = (160, 777, 4001, 1 << 20)


def unidirectional(kind="lstm", context=20):
    return Architecture(161, len(LABELS), kind, 12, 2, False, context)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    path = tmp_path_factory.mktemp("net") / "weights.safetensors"
    return network.load_alone(write_safetensors(path, unidirectional()), "static")


def portions(samples, size):
    return (samples[start : start + size] for start in range(0, len(samples), size))


def posteriors(net, samples, size, settings=SETTINGS):
    stream = Stream(net, settings)
    parts = [stream.none()]
    for portion in portions(samples, size):
        parts += stream.feed(portion)
    return np.concatenate([*parts, *stream.close()])


def features(samples, size, settings=SETTINGS):
    made = Features(settings)
    parts = [part for portion in portions(samples, size) for part in made.feed(portion)]
    return np.concatenate([*parts, made.close()])


@pytest.mark.parametrize("length", LENGTHS)
def test_portions_do_not_matter(net, length):
    samples = tone(1)[:length]
    ways = [posteriors(net, samples, size) for size in PORTIONS]
    assert all(np.array_equal(way, ways[0]) for way in ways)
    assert len(ways[0]) == ((SETTINGS.frames(length) - 1) // 2 + 1 if length > 160 else 0)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("context", [1, 20])
def test_a_stream_is_the_network(tmp_path, kind, context):
    path = write_safetensors(tmp_path / "weights.safetensors", unidirectional(kind, context))
    net = network.load_alone(path, "static")
    for length in LENGTHS[2:]:
        samples = tone(1, 3)[:length]
        whole = torch.from_numpy(features(samples, length).T.copy())
        lengths = torch.tensor([whole.size(1)], dtype=torch.int32)
        with torch.inference_mode():
            expected, _ = net(whole[None, None], lengths)
        found = posteriors(net, samples, 1600)
        assert found.shape == expected[0].shape
        np.testing.assert_allclose(found, expected[0].numpy(), atol=1e-6)


def test_features_are_the_spectrogram_normalised_by_what_was_heard(monkeypatch):
    samples = tone(1, 2)[:15003]
    logarithms = np.log1p(np.abs(spectrogram.stft(samples, SETTINGS)))
    found = features(samples, 333)
    assert found.shape == logarithms.shape
    # A change of the future changes nothing before it.
    changed = samples.copy()
    changed[12000:] *= 3
    same = 12000 // SETTINGS.hop - 1
    assert np.array_equal(features(changed, 333)[:same], found[:same])
    assert not np.allclose(features(changed, 333)[same + 2 :], found[same + 2 :])
    monkeypatch.setattr(Features, "_normalised", lambda self, frame: frame)
    assert np.array_equal(features(samples, 333), logarithms)


def test_the_prior_counts_at_first_and_less_and_less():
    loud = np.full(161, 5.0, "f4") + np.random.default_rng(0).random(161).astype("f4")
    made = Features(SETTINGS)
    frames = np.array([made._normalised(loud) for _ in range(3000)])
    means = frames.mean(axis=1)
    assert means[0] > 10 and abs(means[-1]) < 1 and (np.diff(means) < 1e-6).all()


@pytest.mark.parametrize("spelling", [SETTINGS, spectrogram.Spectrogram(window_size=0.025)])
def test_other_windows(monkeypatch, spelling):
    samples = tone(1, 2)[:9001]
    monkeypatch.setattr(Features, "_normalised", lambda self, frame: frame)
    logarithms = np.log1p(np.abs(spectrogram.stft(samples, spelling)))
    assert np.array_equal(features(samples, 500, spelling), logarithms)


class Spelled:
    """A stream that says a text, a label a frame, ten frames at a time."""

    def __init__(self, text):
        self.text = text
        self.features = Features(SETTINGS)

    def none(self):
        return np.zeros((0, len(LABELS)), "f4")

    def feed(self, portion):
        for _ in range(len(portion) // 3200):
            now, self.text = self.text[:10], self.text[10:]
            yield np.eye(len(LABELS), dtype="f4")[[LABELS.index(letter) for letter in now]]

    def close(self):
        yield self.none()


@pytest.mark.parametrize("size", [3200, 32000, 1 << 20])
def test_words_are_said_when_they_are_at_their_end(size):
    text = "__GG_O___ __ON__ " + "_" * 60 + "STT__O__P" + "_" * 70 + "NO__W" + "_" * 9
    samples = np.zeros(-(-len(text) // 10) * 3200, "f4")
    heard = list(streams.transcribe(portions(samples, size), Spelled(text), LABELS))
    words = [word for some in heard for word in some.words]
    assert [word.text for word in words] == ["GO", "ON", "STOP", "NOW"]
    assert [round(word.start / 0.02 + 0.5) for word in words] == [2, 10, 77, 156]
    assert all(word.confidence == 1 for word in words)
    if size == 3200:
        partial = [some.partial for some in heard]
        assert "ST" in partial or "STO" in partial
        late = [some.latency for some in heard if some.words]
        assert late[-2] == pytest.approx(1.1, abs=0.2)  # STOP, behind which nothing comes


def test_nothing_waits_for_what_comes_later():
    text, asked = "GO_ON_ _" * 10, []

    def microphone():
        for number in range(8):
            asked.append(number)
            yield np.zeros(3200, "f4")

    heard = streams.transcribe(microphone(), Spelled(text), LABELS)
    for number in range(8):
        next(heard)
        assert asked[-1] == number


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = ROOT / "resources/sample/audio/sample-002.flac"
    checkpoint = write_safetensors(tmp_path / "w.safetensors", unidirectional())
    model = ("--model", checkpoint, "--stream")
    whole = run_stage("transcribe", *model, path)
    assert whole.returncode == 0, whole.stderr
    lines = [line.split("\t") for line in whole.stdout.splitlines()]
    assert lines and all(len(line) == 4 for line in lines)
    # Half a sample at the end is what a killed microphone leaves.
    samples = tmp_path / "samples.pcm"
    samples.write_bytes(soundfile.read(path, dtype="int16")[0].tobytes() + b"x")
    with open(samples, "rb") as file:
        piped = run_stage("transcribe", *model, "-", stdin=file)
    for one, other in zip(piped.stdout.splitlines(), whole.stdout.splitlines(), strict=True):
        fields = one.split("\t"), other.split("\t")
        assert [fields[0][n] for n in (0, 1, 3)] == [fields[1][n] for n in (0, 1, 3)]
    with open(path, "rb") as file:
        assert_one_line_error(run_stage("transcribe", *model, "-", stdin=file), "raw PCM")
    assert_one_line_error(
        run_stage("transcribe", "--stream", "--model=embedded", path), "from both"
    )
    assert_one_line_error(run_stage("transcribe", *model, path, path.parent), "one recording")
