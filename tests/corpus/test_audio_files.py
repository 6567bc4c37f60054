"""Every container, codec and state of the header: all samples are read, or the file is refused."""

import io
import re
import struct

import numpy as np
import pytest
import soundfile
from deepspeech2.cli import UserError
from deepspeech2.corpus import audio, mpeg
from helpers import tone

RATE = 16000
SOUND = tone(1.0)
ENCODER_DELAY = 2600  # samples that a lossy codec may add or leave out


def encoded(form, subtype, rate=RATE):
    buffer = io.BytesIO()
    soundfile.write(buffer, SOUND, rate, format=form, subtype=subtype)
    return bytearray(buffer.getvalue())


def sizes(riff, data):
    """A WAV whose writer never knew its lengths."""

    def change(content):
        content[4:8] = struct.pack("<I", riff)
        place = content.index(b"data") + 4
        content[place : place + 4] = struct.pack("<I", data)
        return content

    return change


def with_chunk(content):
    """Another chunk, of odd length, before the sound."""
    place = content.index(b"data")
    content[place:place] = b"LIST" + struct.pack("<I", 5) + b"INFOx\0"
    content[4:8] = struct.pack("<I", len(content) - 8)
    return content


def unknown_au(content):
    content[8:12] = b"\xff\xff\xff\xff"
    return content


def unknown_flac(content):
    """As an encoder leaves it that writes into a pipe: no number of samples."""
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    return content


def half(content):
    return content[: len(content) // 2]


def without_table(content):
    """An MP3 as a streaming encoder writes it."""
    found = mpeg.frames(content)
    assert found.declared == len(found.slices)
    return content[found.slices[0][0] :]


def with_id3(content):
    return bytearray(b"ID3\4\0\0\0\0\1\0" + bytes(128)) + content


def with_id3v1(content):
    return content + b"TAG" + bytes(125)


def in_wav(content):
    """MP3 as the codec of a WAV."""
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 8000, 1, 0, 12, 1, 2, 417, 1, 1393)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", len(content)) + bytes(content)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def chain(*changes):
    def change(content):
        for one in changes:
            content = one(content)
        return content

    return change


STATES = {
    "whole": lambda content: content,
    "sox's pipe": sizes(0x7FFFF024, 0x7FFFF000),
    "ffmpeg's pipe": sizes(0xFFFFFFFF, 0xFFFFFFFF),
    "never completed": sizes(0, 0),
    "no length of data": lambda content: sizes(len(content) - 8, 0)(content),
    "no length at all": sizes(0, 0x7FFFFFFF),
    "another chunk": with_chunk,
}
WHOLE = [
    *[("WAV", codec, state) for codec in ("PCM_16", "PCM_24", "PCM_U8", "FLOAT", "DOUBLE", "ULAW")
      for state in STATES.values()],
    *[("WAV", codec, STATES["whole"]) for codec in ("ALAW", "PCM_32")],
    *[(form, "PCM_16", STATES["whole"]) for form in ("AIFF", "AU", "CAF", "NIST", "RF64", "W64")],
    ("AU", "PCM_16", unknown_au), ("AU", "FLOAT", unknown_au),
    ("FLAC", "PCM_16", STATES["whole"]), ("FLAC", "PCM_24", STATES["whole"]),
    ("FLAC", "PCM_16", unknown_flac), ("FLAC", "PCM_24", unknown_flac),
    ("CAF", "ALAC_16", STATES["whole"]),
]  # fmt: skip
LOSSY = [
    *[("WAV", codec, 16000, STATES["whole"]) for codec in ("GSM610", "IMA_ADPCM", "MS_ADPCM")],
    ("OGG", "VORBIS", 16000, STATES["whole"]), ("OGG", "OPUS", 16000, STATES["whole"]),
    *[("MP3", "MPEG_LAYER_III", rate, state) for rate in (16000, 22050, 44100, 48000)
      for state in (STATES["whole"], without_table, with_id3, with_id3v1,
                    chain(without_table, with_id3), chain(without_table, with_id3v1))],
    ("MP3", "MPEG_LAYER_III", 16000, in_wav),
    ("MP3", "MPEG_LAYER_III", 16000, chain(without_table, in_wav)),
]  # fmt: skip
CUT = [
    *[("WAV", codec) for codec in ("PCM_16", "PCM_24", "FLOAT", "ULAW", "IMA_ADPCM", "GSM610")],
    *[(form, "PCM_16") for form in ("AIFF", "AU", "CAF", "NIST", "RF64", "W64", "FLAC")],
    ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"),
]  # fmt: skip


def test_there_are_many():
    assert len(WHOLE) + len(LOSSY) + len(CUT) >= 90


@pytest.mark.parametrize(("form", "codec", "change"), WHOLE)
def test_every_sample_of_an_exact_file_is_read(tmp_path, form, codec, change):
    content = encoded(form, codec)
    expected, _ = soundfile.read(io.BytesIO(bytes(content)), dtype="float32")
    path = tmp_path / "a"
    path.write_bytes(change(content))
    found = audio.read(path)
    np.testing.assert_array_equal(audio.to_float(found.samples), expected)
    assert audio.length(path) == (RATE, found.notes) and found.notes == []


@pytest.mark.parametrize(("form", "codec", "rate", "change"), LOSSY)
def test_a_lossy_file_is_read_whole(tmp_path, form, codec, rate, change):
    path = tmp_path / "a"
    path.write_bytes(change(encoded(form, codec, rate)))
    with audio._decoding(path) as stream:
        found = np.concatenate(list(stream.blocks))
    assert stream.rate == rate and found.shape[1] == 1
    assert abs(len(found) - RATE) <= ENCODER_DELAY
    likeness = np.correlate(found[:, 0], SOUND[1000:15000], "valid")
    norms = np.linalg.norm(SOUND[1000:15000]) * np.linalg.norm(found)
    assert likeness.max() > 0.9 * norms * (14 / 16) ** 0.5
    assert audio.length(path)[0] == len(audio.read(path).samples)


@pytest.mark.parametrize(("form", "codec"), CUT)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_cut_file_is_refused(tmp_path, form, codec, share):
    path = tmp_path / "a"
    content = encoded(form, codec)
    path.write_bytes(content[: int(share * len(content))])
    for look in (audio.read, audio.length):
        with pytest.raises(UserError, match=re.escape(str(path))):
            look(path)


@pytest.mark.parametrize("share", [0.31, 0.52, 0.83])
def test_a_cut_mp3_without_a_table_is_refused(tmp_path, share):
    content = without_table(encoded("MP3", "MPEG_LAYER_III"))
    (tmp_path / "a.mp3").write_bytes(content[: int(share * len(content)) | 1])
    with pytest.raises(UserError, match="cut short"):
        audio.read(tmp_path / "a.mp3")


@pytest.mark.parametrize("change", [STATES["whole"], without_table])
def test_mp3s_put_together_are_read_to_the_end(tmp_path, change):
    """The table of the first counts only its own frames."""
    content = bytes(change(encoded("MP3", "MPEG_LAYER_III")))
    (tmp_path / "a.mp3").write_bytes(content + content)
    assert len(audio.read(tmp_path / "a.mp3").samples) >= 2 * RATE


@pytest.mark.parametrize(
    ("folder", "name", "samples"),
    [
        ("mp3_vbr_without_xing", "001.mp3", 48696),
        ("mp3_vbr_without_xing", "002.mp3", 32761),
        ("mp3_cbr_without_xing", "a.mp3", 48696),
        ("wav_gsm610", "a.wav", 2 * 24348),
        ("wav_sox_pipe", "a.wav", 11615),
    ],
)
def test_the_cases(shared, folder, name, samples):
    found = audio.read(shared / "cases" / folder / "data" / name)
    assert 0 <= len(found.samples) - samples <= 1500


@pytest.mark.parametrize("name", ["half_AU.au", "half_NIST.sph", "half_RF64.wav"])
def test_the_cut_cases(shared, name):
    with pytest.raises(UserError, match="cut short"):
        audio.read(shared / "cases/cut_audio_accepted" / name)


@pytest.mark.parametrize(
    ("suffix", "container", "codec"),
    [
        (".m4a", "ipod", "aac"), (".mp4", "mp4", "aac"), (".aac", "adts", "aac"),
        (".webm", "webm", "libopus"), (".mka", "matroska", "libopus"), (".wma", "asf", "wmav2"),
        (".mov", "mov", "alac"),
    ],
)  # fmt: skip
def test_what_libsndfile_cannot_read(tmp_path, suffix, container, codec):
    av = pytest.importorskip("av", reason="needs the optional decoders of envs/formats.txt")
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=48000)
        stream.layout, stream.bit_rate = "mono", 64000
        wave = tone(1.0, rate=48000)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.rate = 48000
        resampler = av.AudioResampler(stream.format, "mono", 48000, stream.codec_context.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    found = audio.read(path)
    assert abs(len(found.samples) - RATE) <= ENCODER_DELAY
    likeness = np.correlate(audio.to_float(found.samples), SOUND[1000:15000], "valid").max()
    assert likeness > 0.8 * np.linalg.norm(SOUND[1000:15000]) ** 2
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=re.escape(str(path))):
        audio.read(path)


def test_a_file_cannot_make_ffmpeg_open_another(tmp_path):
    """A playlist under the name of a recording is no recording."""
    pytest.importorskip("av", reason="needs the optional decoders of envs/formats.txt")
    soundfile.write(tmp_path / "other.wav", SOUND, RATE)
    for text in (f"ffconcat version 1.0\nfile {tmp_path}/other.wav\n",
                 f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/other.wav\n#EXT-X-ENDLIST\n"):  # fmt: skip
        for suffix in (".m4a", ".aac", ".webm", ".wma", ".amr"):
            (tmp_path / f"a{suffix}").write_text(text)
            with pytest.raises(UserError, match="a\\."):
                audio.read(tmp_path / f"a{suffix}")


def test_the_missing_decoder_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x18ftypM4A ")
    with pytest.raises(UserError, match="pip install -r envs/formats.txt"):
        audio.read(tmp_path / "a.m4a")


SEGMENTS = [(0.5, 0.9, None), (0.0, 0.25, None), (0.1, 0.6, 1), (0.95, None, 0), (0.2, 1.03, None)]


@pytest.mark.parametrize(("form", "codec"), [("WAV", "PCM_16"), ("FLAC", "PCM_16")])
def test_segments_are_the_samples_at_their_times(tmp_path, monkeypatch, form, codec):
    """Whatever the size of blocks, in the order asked for."""
    both = tone(1.0, channels=2)
    soundfile.write(tmp_path / "a", both, RATE, format=form, subtype=codec)
    whole, _ = soundfile.read(tmp_path / "a", dtype="int16")
    for block in (997, 1 << 16):
        monkeypatch.setattr(audio, "BLOCK", block)
        found = list(audio.read_segments(tmp_path / "a", SEGMENTS))
        for (start, end, channel), sound in zip(SEGMENTS, found, strict=True):
            part = whole[round(start * RATE) : None if end is None else round(end * RATE)]
            expected = part.mean(axis=1) / 32768 if channel is None else part[:, channel] / 32768
            np.testing.assert_allclose(audio.to_float(sound.samples), expected, atol=1e-7)


@pytest.mark.parametrize(
    ("segment", "words"),
    [
        ((0.5, 1.2, None), "ends at 1.000 s"), ((2.0, None, None), "ends at 1.000 s"),
        ((0.5, 0.5, None), "not a time"), ((-1.0, 0.5, None), "not a time"),
        ((0.0, 0.5, 2), "channel 2 of 2"), ((0.0, 0.001, None), "too short"),
    ],
)  # fmt: skip
def test_segments_that_are_not_there(tmp_path, segment, words):
    soundfile.write(tmp_path / "a.wav", tone(1.0, channels=2), RATE)
    with pytest.raises(UserError, match=f"a.wav.*{words}"):
        list(audio.read_segments(tmp_path / "a.wav", [(0.0, 0.5, None), segment]))


@pytest.mark.parametrize(
    ("samples", "note"),
    [
        (0.005 * SOUND, "very quiet: its peak is below -40 dB of full scale"),
        (np.clip(6 * SOUND, -1, 1), "clipped"),
        (np.stack([SOUND, SOUND], 1), "2 channels averaged"),
        (np.stack([SOUND, -0.5 * SOUND], 1), "2 channels averaged, which differ"),
    ],
)
def test_notes(tmp_path, samples, note):
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    assert audio.read(tmp_path / "a.wav").notes == [note]
