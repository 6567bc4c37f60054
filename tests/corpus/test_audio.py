"""Reading recordings: what is converted, and what is refused."""

import numpy as np
import pytest
import soundfile
from deepspeech2.cli import UserError
from deepspeech2.corpus import audio
from helpers import tone


def test_16_bit_mono_keeps_its_samples(tmp_path):
    samples = np.arange(-400, 400, dtype=np.int16)
    for suffix in (".wav", ".flac", ".aiff"):
        path = tmp_path / f"a{suffix}"
        soundfile.write(path, samples, 16000, subtype="PCM_16")
        found = audio.read(path)
        assert found.samples.dtype == np.int16 and not found.notes
        np.testing.assert_array_equal(found.samples, samples)
        assert audio.length(path) == (800, [])


@pytest.mark.parametrize(
    ("suffix", "subtype", "rate", "channels", "notes"),
    [
        (".wav", "PCM_16", 16000, 2, ["2 channels averaged, which differ"]),
        (".wav", "PCM_24", 16000, 1, []),
        (".wav", "FLOAT", 44100, 1, ["resampled from 44100 Hz"]),
        (".wav", "PCM_U8", 8000, 1, ["resampled from 8000 Hz: nothing above 4000 Hz"]),
        (
            ".flac",
            "PCM_24",
            48000,
            2,
            ["2 channels averaged, which differ", "resampled from 48000 Hz"],
        ),
        (".ogg", "VORBIS", 22050, 1, ["resampled from 22050 Hz"]),
        (".mp3", "MPEG_LAYER_III", 16000, 1, []),
    ],
)
def test_other_formats_become_16_khz_mono(tmp_path, suffix, subtype, rate, channels, notes):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, tone(0.5, rate=rate, channels=channels), rate, subtype=subtype)
    found = audio.read(path)
    assert found.notes == notes
    assert audio.length(path) == (len(found.samples), notes)
    assert found.samples.ndim == 1 and len(found.samples) == pytest.approx(8000, abs=1200)
    spectrum = np.abs(np.fft.rfft(audio.to_float(found.samples)[:7000]))
    peak = spectrum.argmax() * 16000 / 7000
    assert peak == pytest.approx(200, abs=5)  # the tone is still at 200 Hz


def test_stereo_is_the_mean_of_its_channels(tmp_path):
    samples = tone(0.1, channels=2)
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    np.testing.assert_allclose(
        audio.read(tmp_path / "a.wav").samples, samples.mean(axis=1), atol=1e-7
    )


def _write(path, samples, subtype="FLOAT", rate=16000):
    soundfile.write(path, np.asarray(samples, np.float32), rate, subtype=subtype)


BAD = {
    "no audio samples": lambda path: _write(path, []),
    "digital silence": lambda path: _write(path, np.zeros(4000)),
    "constant": lambda path: _write(path, np.full(4000, 0.25)),
    "NaN": lambda path: _write(path, [0.1, np.nan] * 500),
    "infinite": lambda path: _write(path, [0.1, np.inf] * 500),
    "too short": lambda path: _write(path, tone(0.1)[:160]),
    "not readable": lambda path: path.write_bytes(b"RIFF no sound"),
    "no such audio file": lambda path: None,
}


@pytest.mark.parametrize("reason", BAD)
def test_what_is_no_speech_is_refused(tmp_path, reason):
    path = tmp_path / "bad one.wav"
    BAD[reason](path)
    with pytest.raises(UserError, match=reason) as error:
        audio.read(path)
    assert str(path) in str(error.value)


def test_161_samples_are_enough(tmp_path):
    _write(tmp_path / "a.wav", tone(0.1)[:161])
    assert len(audio.read(tmp_path / "a.wav").samples) == 161


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".aiff"])
def test_a_cut_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, tone(2.0), 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for look in (audio.read, audio.length):
        with pytest.raises(UserError, match=str(path)):
            look(path)


def test_a_streamed_header_is_not_taken_for_a_cut_file(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(0.5), 16000, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"  # lengths as ffmpeg writes them to a pipe
    path.write_bytes(data)
    assert len(audio.read(path).samples) == audio.length(path)[0] == 8000


def test_a_wrong_byte_rate_is_no_cut(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(0.5), 16000, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[28:32] = (64000).to_bytes(4, "little")
    path.write_bytes(data)
    assert len(audio.read(path).samples) == 8000


@pytest.mark.parametrize(
    ("rate", "seconds", "word"), [(16000, 3601, "longer than 3600 s"), (1, 0, "1 Hz")]
)
def test_absurd_recordings_are_refused(tmp_path, rate, seconds, word):
    path = tmp_path / "a.wav"
    with soundfile.SoundFile(path, "w", rate, 1, subtype="PCM_16") as file:
        for _ in range(seconds):
            file.write(np.zeros(rate, np.float32))
    for look in (audio.read, audio.length):
        with pytest.raises(UserError, match=f"a.wav.*{word}"):
            look(path)
