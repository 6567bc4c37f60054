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


@pytest.mark.parametrize(("form", "codec"), [*CUT, ("WAVEX", "PCM_16"), ("CAF", "ALAC_16"),
                                             ("SVX", "PCM_16"), ("W64", "IMA_ADPCM")])  # fmt: skip
@pytest.mark.parametrize("lost", [1, 4, 50, 900])
def test_a_file_that_lacks_its_last_bytes_is_refused_or_whole(tmp_path, form, codec, lost):
    path = tmp_path / "a"
    path.write_bytes(encoded(form, codec))
    expected = audio.read(path).samples
    path.write_bytes(encoded(form, codec)[:-lost])
    try:
        np.testing.assert_array_equal(audio.read(path).samples, expected)
    except UserError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("form", ["WAV", "WAVEX", "AIFF"])
@pytest.mark.parametrize("wrong", [-44, -8, 8, 44])
def test_a_wrong_length_of_all_chunks_is_no_cut(tmp_path, form, wrong):
    """As programs write it that count the header's own bytes, or forget some."""
    content, order = encoded(form, "PCM_16"), ">I" if form == "AIFF" else "<I"
    content[4:8] = struct.pack(order, len(content) - 8 + wrong)
    (tmp_path / "a").write_bytes(content)
    assert len(audio.read(tmp_path / "a").samples) == audio.length(tmp_path / "a")[0] == RATE


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


def as_ffmpeg_writes(
    path, container, codec, tracks=1, rate=48000, wave=None, bits=64000, **options
):
    """The sound as FFmpeg packs it, or skip the test."""
    av = pytest.importorskip("av", reason="needs the optional decoders of envs/formats.txt")
    with av.open(str(path), "w", format=container, options=options) as file:
        streams = [file.add_stream(codec, rate=rate, layout="mono") for _ in range(tracks)]
        for stream in streams:
            stream.bit_rate = bits
            wave = tone(2.0, rate=rate) if wave is None else wave.astype("f4")
            frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            frame.rate = rate
            size = stream.codec_context.frame_size
            resampler = av.AudioResampler(stream.format, "mono", rate, size)
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                file.mux(stream.encode(part))
            file.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize("options", [{}, {"live": "1"}])
@pytest.mark.parametrize(("suffix", "container"), [(".webm", "webm"), (".mka", "matroska")])
def test_a_cut_webm_is_refused(tmp_path, suffix, container, options):
    path = tmp_path / f"a{suffix}"
    content = as_ffmpeg_writes(path, container, "libopus", **options)
    assert len(audio.read(path).samples) == 2 * RATE
    for share in (0.4, 0.7, 0.97):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(UserError, match="cut short"):
            audio.read(path)
    path.write_bytes(content[:8000] + bytes(400) + content[8400:])
    with pytest.raises(UserError, match="damaged"):
        audio.read(path)


@pytest.mark.parametrize("name", ["a.mp3", "a.wav", "a", "a.M4A"])
@pytest.mark.parametrize(("container", "codec"), [("ipod", "aac"), ("adts", "aac")])
def test_a_container_is_known_by_how_it_begins(tmp_path, name, container, codec):
    as_ffmpeg_writes(tmp_path / name, container, codec)
    assert abs(len(audio.read(tmp_path / name).samples) - 2 * RATE) < ENCODER_DELAY


@pytest.mark.parametrize(
    ("suffix", "container", "codec", "rate", "bits"),
    [(".amr", "amr", "libopencore_amrnb", 8000, 12200), (".aac", "adts", "aac", 16000, 64000)],
)
def test_a_length_that_ffmpeg_guesses_is_no_proof(tmp_path, suffix, container, codec, rate, bits):
    """Nearly silent at first, then loud: the first frames are smaller."""
    path = tmp_path / f"a{suffix}"
    wave = tone(30.0, rate=rate) * np.where(np.arange(30 * rate) < 9 * rate, 1e-4, 1)
    as_ffmpeg_writes(path, container, codec, rate=rate, wave=wave, bits=bits)
    assert abs(len(audio.read(path).samples) - 30 * RATE) < ENCODER_DELAY


def test_several_tracks_of_sound_are_refused(tmp_path):
    as_ffmpeg_writes(tmp_path / "a.mp4", "mp4", "aac", tracks=2)
    with pytest.raises(UserError, match=r"a.mp4: holds 2 tracks of sound"):
        audio.read(tmp_path / "a.mp4")


def test_a_caf_without_a_length_is_read_and_a_cut_one_refused(tmp_path):
    pytest.importorskip("av", reason="needs the optional decoders of envs/formats.txt")
    content, path = encoded("CAF", "PCM_16"), tmp_path / "a.caf"
    path.write_bytes(content[:-2000])
    with pytest.raises(UserError, match="cut short"):
        audio.read(path)
    place = content.index(b"data") + 4
    content[place : place + 8] = b"\xff" * 8
    path.write_bytes(content)
    assert len(audio.read(path).samples) == RATE


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


def chunk(name, content, order="<"):
    return name + struct.pack(f"{order}I", len(content)) + content


NOTE = chunk(b"LIST", b"INFO" + chunk(b"ICMT", bytes(range(1, 251)) * 8))
PICTURE = np.random.default_rng(0).bytes(100_000)
APE = struct.pack("<IIII", 2000, len(PICTURE) + 32, 1, 0) + bytes(8)
APE = b"APETAGEX" + APE + PICTURE + b"APETAGEX" + APE


def short(name, order, size):
    """A file whose header tells only a part of its sound, as one that crashed leaves it."""

    def change(content):
        place = content.index(name) + len(name)
        content[place : place + size] = struct.pack(f"{order}{'IQ'[size == 8]}", 16000)
        return content

    return change


@pytest.mark.parametrize(
    ("form", "change"),
    [
        ("WAV", short(b"data", "<", 4)), ("WAVEX", short(b"data", "<", 4)),
        ("AIFF", short(b"SSND", ">", 4)), ("AU", short(b".snd\0\0\0\x18", ">", 4)),
        ("RF64", short(b"ds64\x1c\0\0\0" + struct.pack("<Q", 32096), "<", 8)),
    ],
)  # fmt: skip
def test_sound_behind_what_the_header_says_is_not_lost(tmp_path, form, change):
    path = tmp_path / "a"
    path.write_bytes(change(encoded(form, "PCM_16")))
    for look in (audio.read, audio.length):
        with pytest.raises(UserError, match="bytes or more behind"):
            look(path)


@pytest.mark.parametrize("behind", [bytes(3), b"TAG" + bytes(125), NOTE, bytes(5000)])
def test_what_else_is_behind_the_sound_of_a_wav_does_not_matter(tmp_path, behind):
    (tmp_path / "a").write_bytes(encoded("WAV", "PCM_16") + behind)
    assert len(audio.read(tmp_path / "a").samples) == audio.length(tmp_path / "a")[0] == RATE


def test_a_note_behind_no_sound_is_no_sound(tmp_path):
    """As programs leave it that were stopped before the first sample."""
    content = sizes(36 + len(NOTE), 0)(encoded("WAV", "PCM_16"))[:44] + NOTE
    (tmp_path / "a").write_bytes(content)
    for look in (audio.read, audio.length):
        with pytest.raises(UserError, match="no audio samples"):
            look(tmp_path / "a")


@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
def test_ogg_files_of_which_a_part_would_be_read(tmp_path, codec):
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(12.0), RATE, format="OGG", subtype=codec)
    content, path = buffer.getvalue(), tmp_path / "a.ogg"
    pages = [found.start() for found in re.finditer(b"OggS", content)]
    assert len(pages) > 5
    for bad, words in (
        (content * 2, "several Ogg recordings"),
        (content + bytes(encoded("OGG", codec)), "several Ogg recordings"),
        (content[: pages[-1]], "its last page is missing"),
        (content[: pages[4]], "its last page is missing"),
        (content[: pages[4]] + content[pages[5] :], "cut short"),
        (content[: pages[4] + 99] + b"?" + content[pages[4] + 100 :], "damaged"),
        (content[: pages[-1] + 99] + b"?" + content[pages[-1] + 100 :], "damaged"),
        (content[: pages[-1] + 20], "its last page lacks bytes"),
    ):
        path.write_bytes(bad)
        with pytest.raises(UserError, match=words):
            audio.read(path)
    path.write_bytes(content + b"TAG" + bytes(125))
    assert len(audio.read(path).samples) == 12 * RATE


@pytest.mark.parametrize("change", [STATES["whole"], without_table])
@pytest.mark.parametrize(
    "tagged",
    [
        lambda x: x + APE, lambda x: x + APE + b"TAG" + bytes(125), lambda x: x + PICTURE,
        lambda x: b"ID3\4\0\x10\0\6\x0d\x20" + PICTURE + b"3DI\4\0\x10\0\6\x0d\x20" + x,
        lambda x: bytes(3000) + x + bytes(3000),
    ],
)  # fmt: skip
def test_a_picture_in_a_tag_is_no_sound(tmp_path, change, tagged):
    content, path = bytes(change(encoded("MP3", "MPEG_LAYER_III"))), tmp_path / "a.mp3"
    path.write_bytes(content)
    expected = audio.read(path).samples
    assert mpeg.frames(tagged(content)).slices[1:] and not mpeg.frames(tagged(content)).cut
    path.write_bytes(tagged(content))
    np.testing.assert_array_equal(audio.read(path).samples, expected)


@pytest.mark.parametrize("change", [STATES["whole"], without_table])
def test_a_damaged_mp3_is_refused(tmp_path, change):
    content, path = bytes(change(encoded("MP3", "MPEG_LAYER_III"))), tmp_path / "a.mp3"
    start, _ = mpeg.frames(content).slices[9]
    for bad in (content[:start] + PICTURE[:500] + content[start:],
                content[:start] + b"?" * 50 + content[start + 50 :],
                content[:start] + bytes(999) + content[start + 999 :]):  # fmt: skip
        path.write_bytes(bad)
        with pytest.raises(UserError, match=f"damaged .no MP3 frame at byte {start}"):
            audio.read(path)


def test_samples_of_another_scale_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", 32767 * SOUND, RATE, subtype="FLOAT")
    with pytest.raises(UserError, match="full scale is 1; divide"):
        audio.read(tmp_path / "a.wav")


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
    good = (0.0, 0.5, None)
    first, bad, last = audio.read_segments(tmp_path / "a.wav", [good, segment, good])
    assert re.search(f"a.wav.*{words}", str(bad)) and isinstance(bad, UserError)
    assert len(first.samples) == len(last.samples) == RATE // 2


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


def changed(place, *values):
    """Other bytes from `place` on."""

    def change(content):
        content[place : place + len(values)] = bytes(values)
        return content

    return change


# Found by the fuzzer: each was read to another length without a word.
@pytest.mark.parametrize(
    ("form", "codec", "change", "words"),
    [
        ("AIFF", "PCM_16", changed(48, 4), "cut short"),  # where the sound begins
        ("AIFF", "PCM_16", changed(24, 0x36), "tells of 13952 samples and of 16000"),
        ("AIFF", "PCM_16", chain(changed(22, 0xFF), changed(49, 32)), "tells of 4278206080"),
        ("AU", "PCM_16", changed(10, 0x75), "2048 bytes or more behind"),
        ("FLAC", "PCM_16", changed(24, 0x36), "more sound than its header says"),
        ("FLAC", "PCM_16", changed(24, 0x46), "cut short"),
        *(
            ("FLAC", codec, changed(30, 1, 2, 3), "its sound has another sum")
            for codec in ("PCM_S8", "PCM_16", "PCM_24")
        ),
        (
            "FLAC",
            "PCM_16",
            chain(changed(8, 255, 255, 255, 255), changed(21, 0xF0, 0, 0, 0, 0)),
            "its sound has another sum",
        ),
        ("WAV", "PCM_16", changed(34, 17), "2 bytes a sample by its header, but PCM_24"),
        ("WAV", "PCM_16", changed(32, 0, 0, 24), "0 bytes a sample by its header, but PCM_24"),
        ("RF64", "PCM_16", changed(68, 0, 0, 32), "0 bytes a sample by its header, but PCM_32"),
        ("RF64", "PCM_16", changed(28, 0, 2), "a header that tells of 16000 samples and of 256"),
        ("AIFF", "PCM_16", changed(22, 0, 0, 0, 0, 0, 20), "tells of 0 samples and of 10666"),
        ("RF64", "PCM_16", changed(70, 20), "2 bytes a sample by its header, but PCM_24"),
        ("WAV", "FLOAT", changed(20, 7), "4 bytes a sample by its header, but ULAW"),
        ("NIST", "PCM_16", changed(11, *b"1004"), "more sound than its header says"),
        ("NIST", "PCM_16", changed(80, *b"x" * 300), "no sample_count|not readable"),
        ("MP3", "MPEG_LAYER_III", changed(7, 1), "table of its MP3 frames"),
        ("MP3", "MPEG_LAYER_III", changed(13, *b"xing"), "table of its MP3 frames"),
        ("MP3", "MPEG_LAYER_III", changed(20, 0), "table of its MP3 frames"),
        ("MP3", "MPEG_LAYER_III", changed(154, 0xFF), "table of its MP3 frames"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path, form, codec, change, words):
    path = tmp_path / "a"
    path.write_bytes(change(encoded(form, codec)))
    with pytest.raises(UserError, match=words):
        audio.read(path)


@pytest.mark.parametrize(
    ("form", "codec", "change", "note"),
    [
        (
            "MP3",
            "MPEG_LAYER_III",
            chain(without_table, changed(2, 0)),
            "began with what is no sound",
        ),
        (
            "AU",
            "PCM_16",
            changed(10, 0x7C, 0xF0),
            "have bytes behind their sound, which are left out",
        ),
    ],
)
def test_what_is_left_out_of_a_file_is_noted(tmp_path, form, codec, change, note):
    path = tmp_path / "a"
    path.write_bytes(change(encoded(form, codec)))
    assert note in audio.read(path).notes
    assert audio.length(path)[1] == audio.read(path).notes


@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_the_sum_of_a_table_by_ffmpeg(tmp_path, layout, rate):
    """FFmpeg sums 190 bytes, wherever it writes the sum; libsndfile's LAME those before it."""
    av = pytest.importorskip("av", reason="needs envs/formats.txt")
    path = tmp_path / "a.mp3"
    with av.open(str(path), "w", format="mp3") as out:
        stream = out.add_stream("libmp3lame", rate=rate, layout=layout)
        wave = (tone(1.0, rate=rate) * 20000).astype("i2").repeat(1 if layout == "mono" else 2)
        frame = av.AudioFrame.from_ndarray(wave[None], format="s16", layout=layout)
        frame.rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            out.mux(packet)
    data = path.read_bytes()
    found = mpeg.frames(data)
    assert found.declared == len(found.slices)
    assert not found.damaged
    table = data.index(b"Info")
    damaged = bytearray(data)
    damaged[table + 141] ^= 1  # the encoder's delay
    assert mpeg.frames(bytes(damaged)).damaged


def test_a_table_of_an_encoder_that_sums_nothing(tmp_path):
    """What stands where LAME has its name and sum is that encoder's own."""
    data = encoded("MP3", "MPEG_LAYER_III")
    place = data.index(b"LAME")
    data[place : place + 4] = b"GOGO"
    data[place + 34 : place + 36] = b"xy"
    (tmp_path / "a.mp3").write_bytes(data)
    whole = tmp_path / "whole.mp3"
    whole.write_bytes(encoded("MP3", "MPEG_LAYER_III"))
    assert len(audio.read(tmp_path / "a.mp3").samples) == len(audio.read(whole).samples)


@pytest.mark.parametrize("size", [4, 21, 22, 41])
def test_a_flac_of_a_few_bytes_is_refused(tmp_path, size):
    (tmp_path / "a.flac").write_bytes(encoded("FLAC", "PCM_16")[:size])
    with pytest.raises(UserError, match=r"a\.flac: not readable as audio"):
        audio.read(tmp_path / "a.flac")


def test_a_flac_without_a_checksum_is_read(tmp_path):
    content = bytearray(encoded("FLAC", "PCM_16"))
    content[26:42] = bytes(16)
    (tmp_path / "a.flac").write_bytes(content)
    assert len(audio.read(tmp_path / "a.flac").samples) == 16000
