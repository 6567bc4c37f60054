"""Features: layout, order, values against a float64 computation, and bad input."""

import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from deepspeech2.cli import UserError
from deepspeech2.corpus import audio, labels
from deepspeech2.features import batches as features
from deepspeech2.features import measure
from deepspeech2.features import preprocess as stage
from deepspeech2.features.batches import Batches, FeatureSet
from deepspeech2.features.spectrogram import WINDOWS, Spectrogram, compute, stft
from helpers import (
    LABELS,
    assert_one_line_error,
    run_stage,
    tiny_description,
    tone,
    write_folder,
    write_sealed,
)


def write_manifest(folder, path=None):
    """A manifest of a folder of recordings, in reverse order of names."""
    names = sorted((p.stem for p in folder.glob("*.wav")), reverse=True)
    samples = [{"wav_path": f"{n}.wav", "transcript_path": f"{n}.txt"} for n in names]
    path = path or folder / "manifest.json"
    path.write_text(json.dumps({"root_path": str(folder), "samples": samples}))
    return path


def preprocess(folder, out, *more, manifest=None, description=None, **options):
    out.mkdir(exist_ok=True)
    write_sealed(out / "model.json", description or tiny_description())
    (out / "labels.json").write_text(json.dumps(LABELS))
    return run_stage(
        "features.preprocess", "--manifest", manifest or write_manifest(folder),
        "--model", out / "model.json", "--labels", out / "labels.json",
        "--features", out / "features", "--index", out / "features.json", *more, **options,
    )  # fmt: skip


def float64_features(samples):
    """The same features by plain numpy in double precision, from their definition."""
    padded = np.pad(samples.astype("f8"), 160, mode="reflect")
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(320) / 320)  # periodic Hamming
    frames = np.stack([padded[i : i + 320] * window for i in range(0, len(padded) - 319, 160)])
    features = np.log1p(np.abs(np.fft.rfft(frames, axis=1))).T
    return (features - features.mean()) / features.std(ddof=1)


@pytest.mark.parametrize("count", [161, 321, 1601, 16001])
def test_spectrogram_against_float64(count):
    samples = tone(2)[:count]
    found = compute(samples, Spectrogram())
    assert found.dtype == np.float32 and found.shape == (161, 1 + count // 160)
    np.testing.assert_allclose(found, float64_features(samples), atol=1e-4)


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large")
@pytest.mark.parametrize("window", WINDOWS)
def test_spectrogram_is_librosas_bit_for_bit(window):
    librosa = pytest.importorskip("librosa")
    from scipy.signal import windows

    # V3 has librosa choose by name; V1 and V2 give it scipy's function.
    name, _, symmetric = window.partition("_")
    chosen = getattr(windows, name) if symmetric else name
    # Windows that overlap by half, by more, by no whole number, not at all, and of odd lengths.
    for size, stride in (
        (0.02, 0.01), (0.032, 0.008), (0.025, 0.01), (0.0125, 0.0125), (0.0200625, 0.01),
        (0.0125625, 0.0063125),
    ):  # fmt: skip
        settings = Spectrogram(16000, size, stride, window)
        for count in (settings.n_fft // 2 + 1, 319, 320, 321, 480, 8000, 8001, 8159, 24000):
            samples = tone(2)[:count]
            expected = librosa.stft(
                samples, n_fft=settings.n_fft, hop_length=settings.hop, window=chosen,
                pad_mode="reflect",
            )  # fmt: skip
            assert settings.frames(count) == expected.shape[1]
            np.testing.assert_array_equal(stft(samples, settings).T, expected)
            features = np.log1p(np.abs(expected))
            features -= np.float32(features.mean(dtype="f8"))
            features /= np.float32(features.std(ddof=1, dtype="f8"))
            np.testing.assert_array_equal(compute(samples, settings), features)


@pytest.mark.parametrize("extra", [0, 1])
def test_an_utterance_shorter_than_half_a_window(tmp_path, extra):
    """There is nothing to reflect: named, where numpy would stop or the frames be fewer."""
    folder = write_folder(tmp_path / "set")
    soundfile.write(folder / "u1.wav", tone(1)[: 256 + extra], 16000)
    description = tiny_description()
    description["spectrogram"]["window_size"] = 0.032
    result = preprocess(folder, tmp_path / "out", description=description)
    if extra:
        assert result.returncode == 0, result.stderr
    else:
        assert_one_line_error(result, "u1.wav", "256 samples", "needs 257")


def test_preprocessing_needs_no_librosa(tmp_path):
    """Importing it takes seconds."""
    folder = write_folder(tmp_path / "set")
    (tmp_path / "librosa.py").write_text("raise SystemExit('imported')")
    places = os.environ["PYTHONPATH"], str(tmp_path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    result = preprocess(folder, tmp_path / "out", env=environment)
    assert result.returncode == 0, result.stderr


def test_the_last_frame_of_whole_hops_deviates_as_in_librosa():
    """librosa from 0.10 on reflects one sample of that frame wrongly; so does the reference."""
    samples = tone(1)
    found, exact = compute(samples, Spectrogram()), float64_features(samples)
    np.testing.assert_allclose(found[:, :-1], exact[:, :-1], atol=1e-4)
    np.testing.assert_allclose(found[:, -1], exact[:, -1], atol=5e-3)


def test_layout_order_and_ties(tmp_path):
    folder = write_folder(tmp_path / "my set", ("A B", "IT'S", "YES"))
    soundfile.write(folder / "a tie.wav", tone(0.6, 9), 16000)
    (folder / "a tie.txt").write_text("GO")
    result = preprocess(folder, tmp_path / "out", "--processes", 2)
    assert result.returncode == 0, result.stderr
    sizes = tmp_path / "out" / "features" / "sizes"
    assert (sizes / "sizes.txt").read_text() == "61 61 51 41 "
    ids = [LABELS.index(c) for c in "GO" + "YES" + "IT'S" + "A B"]
    assert (sizes.parent / "targets.txt").read_text() == "".join(f"{i} " for i in ids)
    assert (sizes.parent / "target_sizes.txt").read_text() == "2 3 4 3 "
    names = [path.relative_to(sizes.parent).as_posix() for path in sizes.parent.rglob("*.*")]
    bins = [f"{kind}/data{number}.bin" for kind in ("sizes", "spect") for number in range(1, 5)]
    assert sorted(names) == sorted([*bins, "sizes/sizes.txt", "target_sizes.txt", "targets.txt"])
    index = json.loads((tmp_path / "out" / "features.json").read_text())
    assert [u["id"] for u in index["utterances"]] == ["a tie", "u2", "u1", "u0"]
    assert [u["manifest_position"] for u in index["utterances"]] == [3, 0, 1, 2]
    for number, utterance in enumerate(index["utterances"], 1):
        assert np.fromfile(sizes / f"data{number}.bin", "i4").tolist() == [utterance["frames"]]
        data = np.fromfile(sizes.parent / "spect" / f"data{number}.bin", "f4").reshape(161, 61)
        samples = audio.to_float(audio.read(folder / f"{utterance['id']}.wav").samples)
        np.testing.assert_array_equal(
            data[:, : utterance["frames"]], compute(samples, Spectrogram())
        )
        assert not data[:, utterance["frames"] :].any()


def test_the_number_of_processes_changes_nothing(tmp_path):
    folder = write_folder(tmp_path / "set", [f"WORD {chr(65 + i)}" for i in range(7)])
    for processes in (1, 3):
        out = tmp_path / str(processes)
        assert preprocess(folder, out, "--processes", processes).returncode == 0
    one, three = ((tmp_path / n / "features.json").read_bytes() for n in "13")
    assert one == three


def test_batches(tmp_path):
    folder = write_folder(tmp_path / "set", ("A", "B", "C", "D", "E"))
    assert preprocess(folder, tmp_path / "out").returncode == 0
    features = FeatureSet(tmp_path / "out/features", tmp_path / "out/features.json")
    assert [u["frames"] for u in features.utterances] == [81, 71, 61, 51, 41]
    full = Batches(features, 2, "longest").assemble(2)
    assert full.positions == [2, 3] and full.lengths.tolist() == [61, 51]
    assert full.spectrograms.shape == (2, 1, 161, 81) and full.lengths.dtype == np.int32
    trimmed = Batches(features, 2, "batch").assemble(2)
    assert trimmed.spectrograms.shape == (2, 1, 161, 61)
    np.testing.assert_array_equal(trimmed.spectrograms, full.spectrograms[..., :61])
    filled = Batches(features, 3, "longest").assemble(4)
    assert filled.positions == [4] and filled.lengths.tolist() == [41, 41, 41]
    short = Batches(features, 4, "batch").assemble(3)  # of any width, so of any number of rows
    assert short.lengths.tolist() == [51, 41] and short.spectrograms.shape == (2, 1, 161, 51)
    uneven = Batches(features, 4, [60]).assemble(3)
    assert uneven.lengths.tolist() == [51, 41, 41, 41]  # filled up with the last utterance
    np.testing.assert_array_equal(uneven.spectrograms[3], uneven.spectrograms[1])
    np.testing.assert_array_equal(filled.spectrograms[2], filled.spectrograms[0])


@pytest.mark.parametrize("damage", ["alter", "cut", "delete"])
def test_an_altered_feature_is_refused_with_the_remedy(tmp_path, damage):
    folder = write_folder(tmp_path / "set")
    assert preprocess(folder, tmp_path / "out").returncode == 0
    path = tmp_path / "out/features/spect/data2.bin"
    data = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(data[:-4] if damage == "cut" else data[:-1] + b"\x01")
    features = FeatureSet(tmp_path / "out/features", tmp_path / "out/features.json")
    features.load(0)
    with pytest.raises(UserError, match=r"data2.bin: (altered|missing).*snakemake.*features.json"):
        features.load(1)


def test_all_features_are_verified_at_once_and_then_no_more(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "set")
    assert preprocess(folder, tmp_path / "out").returncode == 0
    place = tmp_path / "out/features", tmp_path / "out/features.json"
    checked, check = [], features.require_unaltered

    def require_unaltered(path, *arguments):
        checked.append(path.name)
        check(path, *arguments)

    monkeypatch.setattr(features, "require_unaltered", require_unaltered)
    found = FeatureSet(*place)
    found.load(1)
    found.verify()
    assert sorted(checked) == ["data1.bin", "data2.bin", "data3.bin"]
    found.verify()
    Batches(found, 4, "longest").assemble(0)
    assert len(checked) == 3
    path = place[0] / "spect/data3.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match=r"data3.bin: altered.*snakemake.*features.json"):
        FeatureSet(*place).verify()


def test_characters_outside_the_labels(tmp_path):
    folder = write_folder(tmp_path / "set")
    (folder / "u1.txt").write_text("GO ÖN!", encoding="utf-8")
    assert_one_line_error(preprocess(folder, tmp_path / "out"), "u1.txt", "'Ö'")
    assert not (tmp_path / "out/features").exists()
    result = preprocess(folder, tmp_path / "out", "--unknown-characters", "drop")
    assert result.returncode == 0, result.stderr
    index = json.loads((tmp_path / "out/features.json").read_text())
    assert [u["reference"] for u in index["utterances"]] == ["STOP", "GO N", "YES"]
    assert index["dropped"] == {"Ö": [1, 1], "!": [1, 1]}
    (folder / "u1.txt").write_text("Ö", encoding="utf-8")
    result = preprocess(folder, tmp_path / "out", "--unknown-characters", "drop")
    assert_one_line_error(result, "u1.txt", "no character")


def test_the_blank_is_no_character_of_a_transcript():
    with pytest.raises(UserError, match="'_'"):
        labels.encode("A_B", LABELS, False, "x.txt")
    assert labels.encode("A_B", LABELS, True, "x.txt") == ([2, 3], ["_"])


def test_bad_input_is_named_and_leaves_nothing(tmp_path):
    folder = write_folder(tmp_path / "set")
    out = tmp_path / "out"
    good = write_manifest(folder, tmp_path / "good.json")
    (folder / "u0.txt").write_text("\n")
    assert_one_line_error(preprocess(folder, out, manifest=good), "u0.txt", "empty")
    (folder / "u0.txt").write_text("YES")
    soundfile.write(folder / "u2.wav", np.zeros(16000), 16000)
    assert_one_line_error(preprocess(folder, out, manifest=good), "u2.wav", "silence")
    (folder / "u2.wav").unlink()
    assert_one_line_error(preprocess(folder, out, manifest=good), "u2.wav", "no such audio file")
    double = tmp_path / "double.json"
    sample = {"wav_path": "u0.wav", "transcript_path": "u0.txt"}
    other = {"wav_path": "u1.wav", "transcript_path": "u1.txt"}
    double.write_text(json.dumps({"root_path": str(folder), "samples": [sample, other, sample]}))
    assert_one_line_error(preprocess(folder, out, manifest=double), "two utterances", "'u0'")
    double.write_text(json.dumps({"root_path": str(folder), "samples": []}))
    assert_one_line_error(preprocess(folder, out, manifest=double), "no utterances")
    description = {**tiny_description(), "labels": [LABELS[0], *LABELS[:0:-1]]}
    result = preprocess(folder, out, manifest=good, description=description)
    assert_one_line_error(result, "labels", "model.json")
    assert {p.name for p in out.iterdir()} == {"model.json", "labels.json"}


def test_a_hash_in_the_manifest_is_checked(tmp_path):
    folder = write_folder(tmp_path / "set")
    manifest = write_manifest(folder)
    data = json.loads(manifest.read_text())
    data["samples"][0]["wav_sha256"] = "0" * 64
    manifest.write_text(json.dumps(data))
    result = preprocess(folder, tmp_path / "out", manifest=manifest)
    assert_one_line_error(result, "u2.wav: altered", "rebuild it with")
    assert str(tmp_path) in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs file size limits of POSIX")
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    import resource

    folder = write_folder(tmp_path / "set")

    def small_disk():
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    result = preprocess(folder, tmp_path / "out", preexec_fn=small_disk)
    assert_one_line_error(result, "File too large")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"model.json", "labels.json"}


def test_too_little_space_is_seen_before_work(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "set")
    nearly_full = SimpleNamespace(free=1000)
    monkeypatch.setattr(stage.shutil, "disk_usage", lambda _: nearly_full)
    settings = measure.Settings(LABELS, Spectrogram(), False)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"3 utterances padded to the longest \('u2', 0.6 s\)"):
        manifest = write_manifest(folder)
        jobs = measure.jobs_of(manifest, settings)
        stage.preprocess(manifest, jobs, settings, tmp_path / "out", 1)
