"""Training: what epochs consist of, how utterances are changed, alignment, learning, resuming."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import helpers
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from conftest import ROOT
from deepspeech2.cli import UserError
from deepspeech2.config import Train
from deepspeech2.corpus.utterance import Utterance
from deepspeech2.features import spectrogram
from deepspeech2.features.spectrogram import Spectrogram
from deepspeech2.files import read_json, read_sealed, sha256, write_json
from deepspeech2.model import checkpoint
from deepspeech2.model.architecture import Architecture
from deepspeech2.model.network import DeepSpeech2
from deepspeech2.training import augment, curves, epochs, learn
from deepspeech2.training.augment import Augmentation
from deepspeech2.training.epochs import Item, Part, Plan, Recording
from deepspeech2.training.run import Run, Settings, _moving_average
from scipy.io import wavfile

LABELS = json.loads((ROOT / "resources" / "labels.json").read_text())
# Without instructions for bfloat16 an epoch in it takes a minute; what is saved is float32 in both.
CPUINFO = Path("/proc/cpuinfo")
HAS_BF16 = CPUINFO.exists() and "avx512_bf16" in CPUINFO.read_text()
PRECISION = "bf16" if HAS_BF16 else "fp32"
SMALL = {"rnn_type": "lstm", "hidden_size": 48, "hidden_layers": 1, "bidirectional": True}
OTHER = {**SMALL, "rnn_type": "gru"}
SPECTROGRAM = Spectrogram()


def rng(seed=0):
    return np.random.default_rng(seed)


# Augmentation.


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.25])
def test_speed_changes_length_and_pitch_alike(speed):
    time_axis = np.arange(16000) / 16000
    tone = (0.5 * np.sin(2 * np.pi * 1000 * time_axis)).astype(np.float32)
    changed = augment.change_samples(tone, speed, Augmentation(), rng())
    assert len(changed) == pytest.approx(16000 / speed, abs=1)
    spectrum = np.abs(np.fft.rfft(changed * np.hanning(len(changed))))
    peak = spectrum.argmax() * 16000 / len(changed)
    assert peak == pytest.approx(1000 * speed, rel=0.01)
    assert changed.dtype == np.float32


def test_noise_has_the_wanted_level_and_gain_its_bounds():
    samples = rng(1).standard_normal(16000).astype(np.float32) * 0.1
    settings = Augmentation(noise=1.0, snr=(12.0, 12.0))
    noise = augment.change_samples(samples, 1.0, settings, rng()) - samples
    ratio = 10 * np.log10(np.mean(samples**2) / np.mean(noise**2))
    assert ratio == pytest.approx(12, abs=0.01)
    gains = [
        augment.change_samples(samples, 1.0, Augmentation(gain=6.0), rng(i))[0] / samples[0]
        for i in range(50)
    ]
    assert 10 ** (-6 / 20) <= min(gains) < 0.7 and 1.4 < max(gains) <= 10 ** (6 / 20)


def test_the_vocal_tract_moves_every_frequency():
    spectrogram = np.zeros((161, 4), np.float32)
    spectrogram[80] = 1
    for factor in (0.9, 1.0, 1.1):
        assert augment.stretch(spectrogram, factor).argmax(axis=0).tolist() == [80 * factor] * 4


def test_masks_are_no_wider_than_allowed_and_zero():
    ones = np.ones((161, 100), np.float32)
    settings = Augmentation(frequency_masks=1, frequency_width=24, time_masks=1, time_width=20)
    widths = set()
    for seed in range(60):
        changed = augment.change_spectrogram(ones, settings, rng(seed))
        rows, columns = (changed == 0).all(axis=1).sum(), (changed == 0).all(axis=0).sum()
        assert set(np.unique(changed)) <= {0, 1} and rows <= 24 and columns <= 20
        widths.add((rows, columns))
    assert len(widths) > 30 and (ones == 1).all()
    # A short utterance loses no more than a quarter.
    short = augment.change_spectrogram(ones[:, :8], settings._replace(frequency_masks=0), rng(3))
    assert (short == 0).all(axis=0).sum() <= 2


def test_without_settings_nothing_is_changed():
    samples = rng().standard_normal(3000).astype(np.float32)
    assert (augment.change_samples(samples, 1.0, Augmentation(), rng()) == samples).all()
    spectrogram = rng().standard_normal((161, 9)).astype(np.float32)
    assert (augment.change_spectrogram(spectrogram, Augmentation(), rng()) == spectrogram).all()


# What an epoch consists of.


def recording(path, samples, dataset="a", speaker="s", text="GO"):
    return Recording(Utterance(str(path), str(path), text, speaker), samples, dataset)


def spoken_by(found, speaker):
    """A recording as that of another speaker."""
    return found._replace(utterance=found.utterance._replace(speaker=speaker))


def corpus(count=40, speakers=4):
    """Recordings of two datasets; those of `b` are long."""
    found = []
    for i in range(count):
        dataset = "ab"[i % 2]
        samples = 16000 * (1 + i % 5) * (3 if dataset == "b" else 1)
        text = " ".join("ONE TWO THREE FOUR".split()[: 1 + i % 4])
        found.append(recording(f"{i}.wav", samples, dataset, f"s{i % speakers}", text))
    return found


def plan(**changes):
    settings = {
        "shares": {"a": 1.0, "b": 0.5},
        "splices": {},
        "frames_per_batch": 4000,
        "spectrogram": SPECTROGRAM,
        "augmentation": Augmentation(speed=(0.9, 1.1)),
        "seed": 3,
    }
    return Plan(**{**settings, **changes})


def numbers(batches):
    return [item.parts[0].recording for items in batches for item in items]


def test_an_epoch_follows_from_seed_and_number_alone():
    found = epochs.draw(plan(), 5, corpus(), {})
    assert found == epochs.draw(plan(), 5, corpus(), {})
    assert found != epochs.draw(plan(), 6, corpus(), {})
    assert found != epochs.draw(plan(seed=4), 5, corpus(), {})


@pytest.mark.parametrize(("share", "least", "most"), [(1.0, 1, 1), (0.5, 0, 1), (2.5, 2, 3)])
def test_shares_say_how_often_utterances_come(share, least, most):
    chosen = numbers(epochs.draw(plan(shares={"a": 1.0, "b": share}), 1, corpus(), {}))
    counts = [chosen.count(i) for i in range(1, 40, 2)]
    assert min(counts) == least and max(counts) == most and sum(counts) == 20 * share
    assert sorted(n for n in chosen if n % 2 == 0) == list(range(0, 40, 2))


def test_batches_hold_similar_lengths_within_their_bound():
    batches = epochs.draw(plan(), 1, corpus(400), {})
    assert len(batches) > 20
    for items in batches:
        frames = [item.frames for item in items]
        assert frames == sorted(frames, reverse=True)
        assert frames[0] * len(frames) <= 4000 or len(frames) == 1
    padded = sum(items[0].frames * len(items) for items in batches)
    assert padded < 1.1 * sum(item.frames for items in batches for item in items)
    longest = [items[0].frames for items in batches]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)


def test_frames_are_those_of_the_changed_samples(tmp_path):
    recordings = [write_wav(tmp_path / f"{i}.wav", 0.5 + 0.37 * i) for i in range(6)]
    drawn = epochs.draw(plan(shares={"a": 1.0}), 1, recordings, {})
    batches = epochs.Batches(drawn, recordings, LABELS, SPECTROGRAM, Augmentation())
    for number, items in enumerate(drawn):
        spectrograms, lengths, targets, target_lengths = batches[number]
        assert lengths.tolist() == sorted(lengths, reverse=True)
        assert spectrograms.shape == (len(items), 1, 161, lengths[0])
        for item, length in zip(items, lengths):
            assert abs(item.frames - length) <= 1
        assert target_lengths.sum() == len(targets) == sum(len(i.text) for i in items)
        for row, length in zip(spectrograms, lengths):
            assert not row[..., length:].any() and row[..., :length].std() == pytest.approx(1, 0.01)


def write_wav(path, seconds, dataset="a", speaker="s", text="GO"):
    samples = (rng(int(seconds * 100)).standard_normal(int(16000 * seconds)) * 3000).astype("<i2")
    wavfile.write(str(path), 16000, samples)
    return recording(path, len(samples), dataset, speaker, text)


def test_an_utterance_too_short_for_its_text_is_left_out():
    recordings = [
        recording("x.wav", 1600, text="A VERY LONG TEXT FOR A TENTH OF A SECOND"),
        recording("y.wav", 16000),
    ]
    assert numbers(epochs.draw(plan(shares={"a": 1.0}), 1, recordings, {})) == [1]


# Utterances put together anew.


def cuts_of(recordings):
    """Cuts as if all words were equally long."""
    return {
        i: np.linspace(0, r.samples, len(r.text.split()) + 1).astype(int).tolist()
        for i, r in enumerate(recordings)
        if r.dataset == "a"
    }


def test_splices_are_of_one_speaker_with_the_words_that_their_samples_say():
    recordings = corpus(80)
    cuts = cuts_of(recordings)
    items = [
        item
        for epoch in range(5)
        for items in epochs.draw(plan(splices={"a": 0.5}), epoch, recordings, cuts)
        for item in items
    ]
    spliced = [item for item in items if len(item.parts) > 1]
    assert len(spliced) / sum(recordings[i.parts[0].recording].dataset == "a" for i in items) > 0.1
    for item in spliced:
        first = recordings[item.parts[0].recording]
        for part in item.parts:
            source = recordings[part.recording]
            assert source.voice == first.voice and source.dataset == "a"
            words = source.text.split()
            start, end = (cuts[part.recording].index(x) for x in (part.start, part.end))
            assert part.text == " ".join(words[start:end]) and end - start <= epochs.MAX_RUN
        assert item.text == " ".join(part.text for part in item.parts)
    texts = {item.text for item in spliced}
    assert len(texts - {r.text for r in recordings}) > 10


def test_no_splices_before_cuts_are_known_or_of_lonely_speakers():
    recordings = corpus(40)
    assert all(
        len(i.parts) == 1
        for b in epochs.draw(plan(splices={"a": 1.0, "b": 1.0}), 1, recordings, {})
        for i in b
    )
    lonely = [spoken_by(r, str(i)) for i, r in enumerate(recordings)]
    drawn = epochs.draw(plan(splices={"a": 1.0, "b": 1.0}), 1, lonely, cuts_of(lonely))
    assert all(len(item.parts) == 1 for items in drawn for item in items)


def test_parts_are_joined_without_a_click():
    parts = [np.ones(1000, np.float32), np.ones(50, np.float32), np.ones(900, np.float32)]
    joined = epochs.join(parts)
    assert len(joined) == 1950 and joined[0] == 1 and joined[-1] == 1
    long = epochs.join([parts[0], parts[2]])
    assert long[999] == 0 and long[1000] == 0 and np.abs(np.diff(long)).max() < 0.02
    assert (parts[0] == 1).all()


def test_a_spliced_item_is_its_parts_one_after_the_other(tmp_path):
    recordings = [write_wav(tmp_path / f"{i}.wav", 0.5 + i / 4, text="A B") for i in range(2)]
    parts = (Part(0, 1000, 6000, "A"), Part(1, 0, 4000, "A B"))
    item = Item(parts, 1.0, SPECTROGRAM.frames(9000), (0,))
    batches = epochs.Batches([[item]], recordings, LABELS, SPECTROGRAM, Augmentation())
    spectrograms, lengths, targets, target_lengths = batches[0]
    assert lengths.tolist() == [SPECTROGRAM.frames(9000)] and target_lengths.tolist() == [5]
    assert "".join(LABELS[t] for t in targets) == "A A B"
    first, second = (epochs.read(r) for r in recordings)
    expected = spectrogram.compute(epochs.join([first[1000:6000], second[:4000]]), SPECTROGRAM)
    np.testing.assert_array_equal(spectrograms[0, 0], expected)


def test_utterances_of_unknown_speakers_are_not_spliced():
    recordings = [spoken_by(r, "") for r in corpus(40)]
    drawn = epochs.draw(plan(splices={"a": 1.0}), 1, recordings, cuts_of(recordings))
    assert all(len(item.parts) == 1 for items in drawn for item in items)


@pytest.mark.parametrize(
    ("text", "frames"), [("", 0), ("GO", 2), ("A A", 3), ("AA", 3), ("AAA", 5)]
)
def test_ctc_needs_a_blank_between_equal_characters(text, frames):
    assert epochs.needed_frames(text) == frames


def test_words_are_cut_where_it_is_quiet():
    space = LABELS.index(" ")
    targets = [LABELS.index(c) for c in "GO ON"]
    samples = rng().standard_normal(16000).astype(np.float32)
    samples[7600:8000] *= 0.001  # 25 ms
    posteriors = np.full((50, len(LABELS)), 1e-4)
    posteriors[:, 0] = 1
    for frame, label in zip((10, 14, 24, 33, 38), targets):
        posteriors[frame, label] = 100
    found = epochs.word_cuts(posteriors / posteriors.sum(1, keepdims=True), targets, space, samples)
    assert found[0] == 0 and found[2] == 16000 and len(found) == 3
    assert 7600 <= found[1] <= 8000


# The network and its weights in training.


def settings(**changes):
    base = {name: value for name, value in Train().model_dump().items() if name in Settings._fields}
    base |= {
        "architecture": SMALL,
        "shares": {"a": 1.0},
        "augmentation": {},
        "epochs": 10,
        "clean_epochs": 0,
        "dropout": 0.0,
        "precision": "fp32",
    }
    return Settings(**{**base, **changes})


def test_the_learning_rate_rises_and_falls_as_a_cosine():
    run = Run(settings(epochs=11, warmup_epochs=1, learning_rate=2e-3), [], [], LABELS, "cpu")

    def rate(done):
        run._set_learning_rate(done)
        return run.optimizer.param_groups[0]["lr"]

    assert rate(0) == 0 and rate(0.5) == pytest.approx(1e-3) and rate(1) == pytest.approx(2e-3)
    assert rate(6) == pytest.approx(1e-3) and rate(11) == pytest.approx(0, abs=1e-12)


def test_the_moving_average_forgets_the_first_weights():
    update = _moving_average(0.999)
    average, values = [torch.zeros(1)], rng().standard_normal(5000) + 3
    expected = 0.0
    for number, value in enumerate(values):
        share = min(0.999, (1 + number) / (10 + number))
        expected = share * expected + (1 - share) * value
        update(average, [torch.tensor([value], dtype=torch.float32)], torch.tensor(number))
        if number == 100:
            assert average[0].item() == pytest.approx(3, abs=0.5)
    assert average[0].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("form", ["static", "packed"])
def test_dropout_is_of_every_layer_and_only_for_training(form, monkeypatch):
    torch.manual_seed(0)
    net = DeepSpeech2(Architecture(161, 29, "lstm", 16, 3, True), form, 0.5)
    x, lengths = torch.randn(2, 1, 161, 40), torch.tensor([40, 31], dtype=torch.int32)
    shapes, dropout = [], torch.nn.functional.dropout
    monkeypatch.setattr(
        torch.nn.functional, "dropout", lambda x, p: shapes.append(x.shape[-1]) or dropout(x, p)
    )
    with torch.no_grad():
        first, second = net.logits(x, lengths)[0], net.logits(x, lengths)[0]
        assert not torch.equal(first, second)
        assert shapes == [1312, 16, 16, 16] * 2
        net.eval()
        probabilities, out_lengths = net(x, lengths)
        logits, logit_lengths = net.logits(x, lengths)
    assert len(shapes) == 8
    assert torch.equal(probabilities, logits.softmax(-1).transpose(0, 1))
    assert out_lengths.tolist() == logit_lengths.tolist() == [20, 16]


def test_the_rate_to_choose_by_is_the_mean_of_the_datasets(tmp_path):
    recordings = [
        write_wav(tmp_path / f"{name}{i}.wav", 0.5, dataset=name, text=text)
        for name, count, text in (("a", 3, "GO ON"), ("b", 5, "STOP"))
        for i in range(count)
    ]
    run = Run(settings(dev_utterances=4), [], recordings, LABELS, "cpu")
    assert [r.dataset for r in run.dev] == ["a"] * 3 + ["b"] * 4

    def posteriors(chosen, what):
        for number, recording in enumerate(chosen):
            said = "GO" if recording.dataset == "a" else "STOP"
            labels = [x for c in said for x in (LABELS.index(c), 0)]
            yield number, np.eye(len(LABELS))[labels], [1] * len(recording.text), 2.0

    run._posteriors = posteriors
    found = run.evaluate()
    assert (found["dev_wer_a"], found["dev_wer_b"], found["dev_wer"]) == (50, 0, 25)
    assert found["dev_cer"] == pytest.approx((50 + 0) / 2)
    assert found["dev_loss"] == pytest.approx(7 * 2 / (3 * 5 + 4 * 4))


def test_every_character_of_a_batch_counts_the_same():
    run = Run(settings(), [], [], LABELS, "cpu")
    seen = []
    run._autocast = lambda: torch.autocast("cpu", enabled=False)
    logits = torch.zeros(20, 2, 29, requires_grad=True)
    run.network.logits = lambda x, lengths: (logits, lengths)
    run.optimizer.step = lambda: seen.append(logits.grad.clone())
    targets, target_lengths = torch.tensor([7, 8, 9, 10, 7]), torch.tensor([4, 1])
    lengths = torch.tensor([20, 12], dtype=torch.int32)
    loss = run._step(torch.zeros(2, 1, 161, 40), lengths, targets, target_lengths)
    reference = torch.nn.functional.ctc_loss(
        logits.detach().double().log_softmax(-1), targets, lengths.long(), target_lengths,
        reduction="sum",
    )  # fmt: skip
    assert loss == pytest.approx(reference.item() / 5, rel=1e-5)


# The stage.


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A corpus of four spoken utterances of two speakers, with manifests of all and of parts."""
    folder = tmp_path_factory.mktemp("data")
    rows = (ROOT / "resources" / "sample" / "transcripts.tsv").read_text().splitlines()
    chosen = [rows[0], *(row for row in rows[1:] if row.split("\t")[1] in TEXTS)]
    assert len(chosen) == len(TEXTS) + 1
    for row in chosen[1:]:
        path = folder / row.split("\t")[0]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((ROOT / "resources" / "sample" / row.split("\t")[0]).read_bytes())
    (folder / "t.tsv").write_text("\n".join(chosen) + "\n")
    helpers.run_stage(
        "corpus.corpus", "--layout", "tsv", "--source", folder / "t.tsv", "--text-case", "keep",
        "--labels", ROOT / "resources" / "labels.json", "--corpus", folder / "corpus", "--index",
        folder / "corpus.json", "--labels-copy", folder / "labels.json",
    )  # fmt: skip
    for split in ("all", "train", "val"):
        helpers.run_stage(
            "corpus.manifest", "--index", folder / "corpus.json", "--corpus", folder / "corpus",
            "--split", split, "--manifest", folder / f"{split}.json",
        )  # fmt: skip
    return folder


TEXTS = ("GO BACK", "W A L D O", "STOP", "ZERO")


def arguments(data, out, part="all", **changes):
    chosen = settings(**{"shares": {"x": 1.0}, "frames_per_batch": 600, **changes})
    return [
        "--train", f"x={data / part}.json", "--dev", f"x={data / 'all.json'}",
        "--labels", data / "labels.json", "--drop-unknown",
        "--settings", json.dumps(chosen._asdict()),
        "--threads", "1", "--state", out / "state", "--curves", out / "curves.csv",
        "--weights", out / "model.safetensors", "--training", out / "training.json",
        "--texts", out / "texts.txt", "--log", out.with_suffix(".log"),
    ]  # fmt: skip


def test_a_tiny_network_learns_a_few_utterances_by_heart(data, tmp_path):
    done = helpers.run_stage(
        "training.learn",
        *arguments(
            data, tmp_path, epochs=45, learning_rate=5e-3, average=0.9, frames_per_batch=100
        ),
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "curves.csv").read_text().splitlines()
    header, last = (line.split(",") for line in (lines[0], lines[-1]))
    assert float(last[header.index("train_loss")]) < 0.1
    training = read_json(tmp_path / "training.json")["training"]
    best = training["curves"][training["best_epoch"] - 1]
    assert best["dev_wer"] == 0 and best["dev_cer"] == 0
    # The checkpoint is one like any other, and says what it was made from.
    _, description = checkpoint.read(str(tmp_path / "model.safetensors"))
    assert description["training"] == training
    assert training["settings"]["learning_rate"] == 5e-3
    assert training["data"][0] == {
        "part": "train", "name": "x", "sha256": learn.data_sha256(data / "all.json"),
    }  # fmt: skip
    (environment,) = training["environments"]
    assert environment["versions"]["torch"] == metadata.version("torch")
    assert environment["threads"] == 1 and len(environment["code_sha256"]) == 64
    assert (tmp_path / "texts.txt").read_text().split("\n")[:-1] == sorted(TEXTS)
    assert read_json(tmp_path / "training.json")["weights_sha256"] == sha256(
        tmp_path / "model.safetensors"
    )
    # Another run can start from it: it then knows from the first epoch what this one has learnt.
    start, model = tmp_path / "start.safetensors", tmp_path / "start.json"
    helpers.run_stage(
        "model.convert", "--checkpoint", tmp_path / "model.safetensors", "--weights", start,
        "--model", model,
    )  # fmt: skip
    (tmp_path / "start.txt").write_text("ELSEWHERE\n")
    (tmp_path / "on").mkdir()
    on = arguments(data, tmp_path / "on", epochs=1, learning_rate=1e-9, architecture=OTHER)
    from_start = ["--start-weights", start, "--start-model", model]
    from_start += ["--start-texts", tmp_path / "start.txt"]
    done = helpers.run_stage("training.learn", *on, *from_start)
    assert done.returncode == 0, done.stderr
    second = read_json(tmp_path / "on" / "training.json")["training"]
    # (One step moves the statistics of batch normalisation a little; from nothing it would be 100.)
    assert second["curves"][0]["dev_wer"] < 30
    assert second["start"] == {"weights_sha256": sha256(start), "training": training}
    assert second["settings"]["architecture"]["rnn_type"] == "lstm"
    assert (tmp_path / "on" / "texts.txt").read_text().split("\n")[0] == "ELSEWHERE"
    # A network of one direction takes the layers that run forward.
    (tmp_path / "forward").mkdir()
    one = {"bidirectional": False, "lookahead_context": 3}
    forward = arguments(data, tmp_path / "forward", epochs=1, learning_rate=1e-9, architecture=one)
    done = helpers.run_stage("training.learn", *forward, *from_start)
    assert done.returncode == 0, done.stderr
    weights = safetensors.numpy.load_file(tmp_path / "forward/model.safetensors")
    before = safetensors.numpy.load_file(start)
    assert weights["lookahead.0.conv.weight"].shape[2] == 3
    assert not any("_reverse" in name for name in weights)
    name = "rnns.0.rnn.weight_hh_l0"
    assert np.abs(weights[name] - before[name]).max() < 1e-6
    # Its state is not one of a run that starts elsewhere, and labels must be the same.
    refused = helpers.run_stage("training.learn", *on)
    helpers.assert_one_line_error(refused, "state.pt", "other settings or data")
    description = read_sealed(model)
    labels = ["Ä" if label == "Q" else label for label in description["labels"]]
    write_json(model, {**description, "labels": labels})
    refused = helpers.run_stage("training.learn", *on, *from_start)
    helpers.assert_one_line_error(refused, "start.json", "other labels than the datasets'")


def test_a_killed_run_ends_with_the_same_weights(data, tmp_path):
    changes = {
        "epochs": 6, "spliced": ["x"], "splices": 0.8, "splices_from": 3, "align_every": 2,
        "dropout": 0.2, "clean_epochs": 1, "precision": PRECISION,
        "augmentation": {"speed": [0.9, 1.1], "gain": 3.0, "noise": 0.5, "vocal_tract": 0.05,
                         "frequency_masks": 1, "frequency_width": 9, "time_masks": 1,
                         "time_width": 9},
    }  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = helpers.run_stage("training.learn", *arguments(data, whole, **changes))
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "deepspeech2.training.learn"]
    command += map(str, arguments(data, killed, **changes))
    kills = 0
    for epoch in (1, 4):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and epochs_done(killed) < epoch:
            time.sleep(0.02)
        kills += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (killed / "model.safetensors").exists()
    assert kills == 2 and 4 <= epochs_done(killed) < 6
    done = helpers.run_stage("training.learn", *arguments(data, killed, **changes))
    assert done.returncode == 0, done.stderr
    assert "going on after epoch" in killed.with_suffix(".log").read_text()
    first, second = (
        safetensors.torch.load_file(str(folder / "model.safetensors")) for folder in (whole, killed)
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    rows = [read_json(f / "training.json")["training"]["curves"] for f in (whole, killed)]
    for one, two in zip(*rows):
        assert {k: v for k, v in one.items() if k != "seconds"} == {
            k: v for k, v in two.items() if k != "seconds"
        }
    spliced = [row["spliced"] > 0 for row in rows[0]]
    assert spliced[:2] == [False, False] and all(spliced[2:])
    # The texts that were put together are among those that it knows, up to the epoch that is kept.
    found = read_json(whole / "training.json")["training"]
    known = set((whole / "texts.txt").read_text().splitlines())
    assert known > set(TEXTS) or found["best_epoch"] < 3
    assert known == set((killed / "texts.txt").read_text().splitlines())
    # Nothing is left to do the next time.
    before = (killed / "state" / "state.pt").stat().st_mtime_ns
    for name in ("curves.csv", "model.safetensors", "training.json", "texts.txt"):
        (killed / name).unlink()  # Snakemake removes outputs before a job
    assert helpers.run_stage("training.learn", *arguments(data, killed, **changes)).returncode == 0
    assert (killed / "state" / "state.pt").stat().st_mtime_ns == before
    again = safetensors.torch.load_file(str(killed / "model.safetensors"))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert epochs_done(killed) == 6 and (killed / "texts.txt").exists()


def epochs_done(folder):
    try:
        return len((folder / "curves.csv").read_text().splitlines()) - 1
    except OSError:
        return 0


def test_data_are_known_by_their_content_not_their_place(data, tmp_path):
    first = learn.data_sha256(data / "all.json")
    moved = read_sealed(data / "all.json")
    moved["root_path"] = str(data / moved["root_path"])
    (tmp_path / "moved.json").write_text(json.dumps(moved))
    assert learn.data_sha256(tmp_path / "moved.json") == first
    for sample in moved["samples"]:
        del sample["wav_sha256"], sample["txt_sha256"]
    (tmp_path / "foreign.json").write_text(json.dumps(moved))
    assert learn.data_sha256(tmp_path / "foreign.json") == first
    moved["samples"][0]["txt_sha256"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(moved))
    assert learn.data_sha256(tmp_path / "other.json") != first


def test_a_state_of_another_run_is_refused(data, tmp_path):
    assert helpers.run_stage("training.learn", *arguments(data, tmp_path, epochs=1)).returncode == 0
    other = helpers.run_stage("training.learn", *arguments(data, tmp_path, epochs=2))
    helpers.assert_one_line_error(other, "state.pt", "other settings or data", "remove it")
    (tmp_path / "state" / "state.pt").write_bytes(b"nonsense")
    broken = helpers.run_stage("training.learn", *arguments(data, tmp_path, epochs=1))
    helpers.assert_one_line_error(broken, "state.pt", "not a training state")


def test_a_state_cannot_run_anything(data, tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    (tmp_path / "state").mkdir()
    torch.save({"made_with": Harm()}, tmp_path / "state" / "state.pt")
    done = helpers.run_stage("training.learn", *arguments(data, tmp_path, epochs=1))
    helpers.assert_one_line_error(done, "state.pt", "not a training state")
    assert not (tmp_path / "harm").exists()


def test_training_stops_when_it_no_longer_improves():
    run = Run(settings(epochs=9, patience=2), [], [], LABELS, "cpu")
    for wers, best, finished in (
        ([], None, False),
        ([50], 1, False),
        ([50, 40, 40], 2, False),  # the first of equals
        ([50, 40, 41, 40], 2, True),
        ([50, 40, 41, 39], 4, False),
        ([9, 8, 7, 6, 5, 4, 3, 2, 1], 9, True),
    ):
        run.history = [{"epoch": e, "dev_wer": w, "dev_cer": w} for e, w in enumerate(wers, 1)]
        assert run.finished == finished
        assert not wers or run.best_epoch == best


def test_a_loss_that_is_no_number_is_one_line(data, tmp_path):
    done = helpers.run_stage(
        "training.learn", *arguments(data, tmp_path, learning_rate=1e30, epochs=3)
    )
    helpers.assert_one_line_error(done, "the loss is NaN or infinite", "learning rate")


@pytest.mark.parametrize("option", ["--start-weights", "--start-model"])
def test_weights_to_start_from_need_their_description(data, tmp_path, option):
    done = helpers.run_stage("training.learn", *arguments(data, tmp_path), option, "start")
    helpers.assert_one_line_error(done, "--start-weights, --start-model", "both or neither")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one here")
def test_a_missing_device_is_one_line(data, tmp_path):
    done = helpers.run_stage("training.learn", *arguments(data, tmp_path), "--device", "cuda")
    helpers.assert_one_line_error(done, "--device cuda", "use cpu")


def test_an_epoch_without_utterances_is_one_line(data, tmp_path):
    done = helpers.run_stage("training.learn", *arguments(data, tmp_path, shares={"x": 0.01}))
    helpers.assert_one_line_error(done, "epoch 1: no utterance to train on", "shares")
    assert not (tmp_path / "model.safetensors").exists()


def test_what_fails_while_a_batch_is_made_is_one_line(tmp_path):
    lost = write_wav(tmp_path / "a.wav", 0.5)
    (tmp_path / "a.wav").unlink()
    run = Run(settings(), [lost], [lost], LABELS, "cpu")
    with pytest.raises(UserError, match=r"a\.wav: no such audio file"):
        run.epoch()


def test_texts_are_cleaned_of_what_dropped_characters_leave(tmp_path):
    (tmp_path / "a").mkdir()
    wavfile.write(str(tmp_path / "a" / "u.wav"), 16000, np.arange(8000, dtype="<i2"))
    (tmp_path / "a" / "u.txt").write_text("GO - ON ?\n")
    sample = {"wav_path": "u.wav", "transcript_path": "u.txt"}
    content = {"root_path": "a", "samples": [sample]}
    (tmp_path / "m.json").write_text(json.dumps(content))
    (found,) = learn.read_recordings({"x": tmp_path / "m.json"}, LABELS, ["x"], 1)
    assert found.text == "GO ON"
    wavfile.write(str(tmp_path / "a" / "u.wav"), 16000, np.zeros(8000, "<i2"))
    with pytest.raises(UserError, match=r"u\.wav: holds only digital silence"):
        learn.read_recordings({"x": tmp_path / "m.json"}, LABELS, ["x"], 1)


def test_other_labels_are_refused(data, tmp_path):
    (tmp_path / "other.json").write_text(json.dumps(LABELS[:-1]))
    with pytest.raises(UserError, match="other labels than those of"):
        learn.read_labels([data / "labels.json", tmp_path / "other.json"])


def test_held_out_speakers_are_not_trained_on(data):
    speakers = {
        part: {s["speaker"] for s in read_json(data / f"{part}.json")["samples"]}
        for part in ("all", "train", "val")
    }
    assert speakers["train"] & speakers["val"] == set()
    assert speakers["train"] | speakers["val"] == speakers["all"] and speakers["val"]


# What comes after it.


def test_curves_are_drawn(data, tmp_path):
    columns = "epoch,train_loss,dev_loss,dev_wer,dev_wer_an4,dev_cer,learning_rate"
    (tmp_path / "c.csv").write_text(f"{columns}\n1,2,3,90,80,50,0.001\n2,1,2,40,30,20,0.0005\n")
    done = helpers.run_stage(
        "training.curves", "--curves", tmp_path / "c.csv", "--figure", tmp_path / "c.svg"
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "c.svg").read_text()
    words = ("loss per character", "WER, development set", "WER, an4", "learning rate", "epoch")
    assert all(f">{word}" in text for word in words)
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    done = helpers.run_stage(
        "training.curves", "--curves", tmp_path / "bad.csv", "--figure", tmp_path / "b"
    )
    helpers.assert_one_line_error(done, "bad.csv", "not the curves of a training run")
    assert curves.PANELS[1][1]["dev_wer"] == "WER, development set"


def test_items_say_what_is_said():
    parts = (Part(0, 0, 10, "GO"), Part(1, 5, 9, "ON NOW"))
    assert Item(parts, 1.0, 9, (0,)).text == "GO ON NOW"
