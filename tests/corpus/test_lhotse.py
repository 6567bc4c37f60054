"""What lhotse writes, read by us: the same sound and texts as lhotse itself reads."""

import gzip
import json

import numpy as np
import pytest
import soundfile
from deepspeech2.corpus import layouts
from helpers import tone

lhotse = pytest.importorskip("lhotse", reason="needs lhotse (envs/oracles.txt)")
TEXTS = {"a": ["GO ON", "STOP", "YES"], "b": ["NO"], "stereo": ["LEFT", "RIGHT"]}


@pytest.fixture
def sets(tmp_path):
    """Recordings, one of them with two channels, and what is said in parts of them."""
    folder = tmp_path / "wavs"
    folder.mkdir()
    soundfile.write(folder / "a.wav", tone(3.0), 16000)
    soundfile.write(folder / "b.flac", tone(1.0, 1), 16000)
    soundfile.write(folder / "stereo.wav", tone(2.0, 2, channels=2), 16000)
    recordings = lhotse.RecordingSet.from_recordings(
        lhotse.Recording.from_file(path) for path in sorted(folder.iterdir())
    )
    supervisions = lhotse.SupervisionSet.from_segments(
        lhotse.SupervisionSegment(
            id=f"{name}-{number}", recording_id=name, start=0.125 + 0.75 * number * (name == "a"),
            duration=0.5, channel=number if name == "stereo" else 0, text=text, speaker=f"s{name}",
        )
        for name, texts in TEXTS.items()
        for number, text in enumerate(texts)
    )  # fmt: skip
    return recordings, supervisions


def ours(source):
    sounds = {}
    found = layouts.create("lhotse", source).read(sounds.__setitem__)
    return {u.id: (u.text, u.speaker, sounds[u.id].samples) for u in found}


def theirs(cuts):
    found = {}
    for cut in cuts.trim_to_supervisions(keep_overlapping=False):
        said = cut.supervisions[0]
        samples = np.round(cut.load_audio()[0] * 32768).astype(np.int16)
        found[said.id] = (said.text, said.speaker, samples)
    return found


def compare(source, cuts):
    found, expected = ours(source), theirs(cuts)
    assert found.keys() == expected.keys()
    for name, (text, speaker, samples) in expected.items():
        assert found[name][:2] == (text, speaker)
        np.testing.assert_array_equal(found[name][2], samples)


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_recordings_and_supervisions(tmp_path, sets, suffix):
    recordings, supervisions = sets
    recordings.to_file(tmp_path / f"x_recordings_all.{suffix}")
    supervisions.to_file(tmp_path / f"x_supervisions_all.{suffix}")
    cuts = lhotse.CutSet.from_manifests(recordings, supervisions)
    compare(tmp_path / f"x_supervisions_all.{suffix}", cuts)


@pytest.mark.parametrize("kind", ["whole", "trimmed", "windows", "truncated"])
def test_cuts(tmp_path, sets, kind):
    cuts = lhotse.CutSet.from_manifests(*sets)
    if kind == "trimmed":
        cuts = cuts.trim_to_supervisions(keep_overlapping=False)
    elif kind == "windows":  # of which some hold only a part of what is said
        cuts = cuts.filter(lambda cut: cut.num_channels == 1).to_eager()
        cuts = cuts.cut_into_windows(0.8, keep_excessive_supervisions=False)
        cuts = cuts.filter(lambda cut: cut.supervisions).to_eager()
    elif kind == "truncated":
        cuts = cuts.filter(lambda cut: cut.recording_id == "a").to_eager()
        cuts = cuts.truncate(
            max_duration=1.6, offset_type="start", keep_excessive_supervisions=False
        )
    path = tmp_path / "cuts.jsonl.gz"
    cuts.to_file(path)
    with gzip.open(path, "rt") as file:
        assert [json.loads(line)["type"] for line in file]
    compare(path, cuts)
