"""Audio files to 16 kHz mono samples, and the refusal of what is not a usable recording.

Any rate, channel count and format that libsndfile reads is accepted, and with PyAV installed those
of FFmpeg. A file is read until its decoder ends: what its header says of the length is a hint, and
proof of a cut file only where the format is uncompressed and the length plausible. Channels are
averaged and other rates resampled with soxr. What is already 16 kHz, mono and 16 bit keeps its
exact samples.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from deepspeech2.cli import UserError
from deepspeech2.corpus import containers, mpeg
from deepspeech2.files import require_file

SAMPLE_RATE = 16000  # Hz
MIN_SAMPLES = 161  # the spectrogram's reflection padding needs one more than half a window
# What FFmpeg reads and libsndfile does not, with FFmpeg's name of the container. Naming it keeps
# FFmpeg from taking a file for a playlist, which would open other files and addresses.
FFMPEG = {
    **dict.fromkeys((".m4a", ".mp4", ".m4b", ".3gp", ".mov"), "mov"),
    **dict.fromkeys((".webm", ".mka", ".mkv"), "matroska"),
    ".aac": "aac",
    ".amr": "amr",
    ".caf": "caf",  # what libsndfile does not read of it
    ".wma": "asf",
}
# How these begin, whatever their names.
MARKS = {
    rb".{4}ftyp": "mov", rb"\x1aE\xdf\xa3": "matroska", rb"\xff[\xf1\xf9]": "aac",
    rb"#!AMR": "amr", rb"0&\xb2u\x8e\x66": "asf",
}  # fmt: skip
SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".sph", ".w64"),
    *(".wave", ".rf64", ".aifc", ".snd", ".nist"),
    *FFMPEG,
)
INSTALL = "pip install -r envs/formats.txt"
MAX_SECONDS = 3600  # of an utterance
MAX_TIME = 1e7  # seconds in a recording
MAX_VALUES = 1 << 29  # samples of all channels; 2 GiB as float32
BLOCK = 1 << 16  # samples of each channel
RATES = (1_000, 768_000)  # Hz
PLAIN = ("WAV", "PCM_16", SAMPLE_RATE, 1)  # of whose samples `read` changes nothing
UNKNOWN_FRAMES = 1 << 60
CHUNK = rb"[A-Za-z][ -~]{3}"  # the name of one
LATE = 0.05  # seconds that a segment may end behind its recording
CLIPPED = 1e-3  # share of the samples
QUIET = 0.01  # -40 dB of full scale
LOUD = 100  # times full scale: samples of another scale
UNEQUAL = 0.01  # of the peak


class Audio(NamedTuple):
    """`samples` (n,) int16 or float32 at 16 kHz; `notes` say what had to be converted."""

    samples: np.ndarray
    notes: list[str]


class _Forward(soundfile.SoundFile):
    """A file that is read on until its decoder ends: soundfile stops where the header says."""

    def seekable(self) -> bool:
        return False


class _Stream(NamedTuple):
    """Sound as it is decoded: blocks are (n, channels) int16 or float32.

    `notes` on the file are complete when all is decoded.
    """

    rate: int
    channels: int
    blocks: Iterator[np.ndarray]
    notes: list[str]


def read(path: str | Path) -> Audio:
    """Read one recording. Raises `UserError` naming the file for everything that is not speech."""
    with _decoding(path) as stream:
        blocks, count = [], 0
        for block in stream.blocks:
            count += len(block)
            _require_short(count, stream, path)
            blocks.append(block)
    samples = np.concatenate(blocks) if blocks else np.zeros((0, 1), "i2")
    found = _finish(samples, stream.rate, path)
    return Audio(found.samples, [*found.notes, *stream.notes])


def blocks(path: str | Path) -> Iterator[np.ndarray]:
    """A recording of any length, block by block: (n,) float32 at 16 kHz, silence included.

    They are the samples that `read` gives. Raises `UserError` for what is no sound.
    """
    convert, count = None, 0
    with _decoding(path) as stream:
        if stream.rate != SAMPLE_RATE:
            import soxr

            convert = soxr.ResampleStream(
                stream.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ"
            )
        for block in stream.blocks:
            count += len(block)
            samples = _mono(block)
            level = np.abs(samples).max(initial=0)
            if not level <= LOUD:
                raise UserError(f"{path}: samples that are NaN or far above full scale; replace it")
            yield convert.resample_chunk(samples) if convert else samples
    if not count:
        raise UserError(f"{path}: holds no audio samples; remove it")
    if convert:
        yield convert.resample_chunk(np.zeros(0, np.float32), last=True)


def _mono(samples: np.ndarray) -> np.ndarray:
    """The mean of the channels of samples (n, channels): (n,) float32."""
    values = to_float(samples)
    return values[:, 0] if values.shape[1] == 1 else values.mean(axis=1, dtype=np.float32)


def read_segments(
    path: str | Path, segments: Sequence[tuple[float, float | None, int | None]]
) -> Iterator[Audio | UserError]:
    """The segments (start, end, channel) of a recording, in their order, decoded once.

    Times are in seconds; an end of None is the recording's, a channel of None the mean of all. A
    segment is cut at the recording's own rate, then converted. Segments that come in the order of
    time are never all in memory. One that cannot be used is an error in its place; what is wrong
    with the recording is raised.
    """
    if list(segments) == [(0.0, None, None)]:
        yield read(path)
        return
    parts: dict[int, list[np.ndarray]] = {}
    done: dict[int, Audio | UserError] = {}
    following, place = 0, 0

    def place_of(number: int) -> str:
        start, end, _ = segments[number]
        return f"{path}: from {start:.10g} to {'its end' if end is None else f'{end:.10g}'} s"

    with _decoding(path) as stream:

        def bounds(number: int) -> tuple[int, int | None]:
            (start, end, channel), where = segments[number], place_of(number)
            if not 0 <= start < MAX_TIME or not (end is None or start < end < MAX_TIME):
                raise UserError(f"{where}: not a time in the recording; correct the segment")
            if channel is not None and not 0 <= channel < stream.channels:
                raise UserError(
                    f"{where}: channel {channel} of {stream.channels}, counted from 0; correct it"
                )
            return round(start * stream.rate), None if end is None else round(end * stream.rate)

        def close(number: int) -> None:
            samples = np.concatenate(parts.pop(number))
            channel, start = segments[number][2], segments[number][0]
            samples = samples if channel is None else samples[:, channel : channel + 1]
            try:
                done[number] = _finish(samples, stream.rate, f"{path}: at {start:.10g} s")
            except UserError as error:
                done[number] = error

        limits: dict[int, tuple[int, int | None]] = {}
        for number in range(len(segments)):
            try:
                limits[number] = bounds(number)
            except UserError as error:
                done[number] = error
        waiting = sorted(limits, key=lambda number: limits[number][0])
        for block in stream.blocks:
            while waiting and limits[waiting[0]][0] < place + len(block):
                parts[waiting.pop(0)] = []
            for number in list(parts):
                start, end = limits[number]
                inside = block[max(0, start - place) : None if end is None else end - place]
                parts[number].append(inside.copy())  # else the whole block would be kept
                _require_short(sum(map(len, parts[number])), stream, path)
                if end is not None and end <= place + len(block):
                    close(number)
            place += len(block)
            while following in done:
                yield done.pop(following)
                following += 1
        for number in list(parts):
            if (limits[number][1] or 0) <= place + LATE * stream.rate:
                close(number)
    for number in limits.keys() - done.keys():
        ends = f"the recording ends at {place / stream.rate:.3f} s"
        done[number] = UserError(f"{place_of(number)}: but {ends}; correct the segment")
    while following in done:
        yield done.pop(following)
        following += 1


def length(path: str | Path) -> tuple[int, list[str]]:
    """How many samples `read` gives, and its notes.

    Where a plain file's header says it, only that is read, and what comes after it not checked.
    """
    with contextlib.suppress(RuntimeError), soundfile.SoundFile(str(path)) as file:
        plain = (file.format, file.subtype, file.samplerate, file.channels) == PLAIN
        usual = MIN_SAMPLES <= file.frames <= MAX_SECONDS * SAMPLE_RATE
        if plain and usual:
            return file.frames, containers.require_right_length(str(path), file)
    samples, notes = read(path)
    return len(samples), notes


def check(samples: np.ndarray, where: str | Path) -> None:
    """Refuse samples that hold no sound: none at all, not finite, silent or constant."""
    if not len(samples):
        raise UserError(f"{where}: holds no audio samples; remove the utterance")
    if samples.dtype != np.int16 and not np.isfinite(samples).all():
        raise UserError(f"{where}: holds samples that are NaN or infinite; replace the file")
    low, high = samples.min(), samples.max()
    if low == high:
        kind = "digital silence" if low == 0 else "a constant signal"
        raise UserError(f"{where}: holds only {kind}; remove the utterance")


def to_float(samples: np.ndarray) -> np.ndarray:
    """Samples as float32: int16 divided by 32768, which gives [-1, 1); float as it is."""
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / np.float32(32768)
    return samples.astype(np.float32, copy=False)


def _require_short(count: int, stream: _Stream, path: str | Path) -> None:
    if count > MAX_SECONDS * stream.rate or count * stream.channels > MAX_VALUES:
        raise UserError(f"{path}: longer than {MAX_SECONDS} s; split or replace the file")


def _finish(samples: np.ndarray, rate: int, where: str | Path) -> Audio:
    """Samples (n, channels) at `rate` as they are used, with notes."""
    notes, channels = [], samples.shape[1]
    if len(samples) and channels > 1:
        values = to_float(samples)
        apart = np.ptp(values, axis=1).max() > UNEQUAL * np.abs(values).max()
        notes.append(f"{channels} channels averaged{', which differ' if apart else ''}")
        samples = values.mean(axis=1, dtype=np.float32)
    else:
        samples = samples[:, 0]
    check(samples, where)
    if rate != SAMPLE_RATE:
        import librosa  # slow to import, and most corpora never need it

        upper = f": nothing above {rate // 2} Hz" if rate < SAMPLE_RATE else ""
        notes.append(f"resampled from {rate} Hz{upper}")
        samples = librosa.resample(
            to_float(samples), orig_sr=rate, target_sr=SAMPLE_RATE, res_type="soxr_hq"
        )
    if len(samples) < MIN_SAMPLES:
        seconds = len(samples) / SAMPLE_RATE
        raise UserError(
            f"{where}: too short ({seconds:.4f} s; the spectrogram needs {MIN_SAMPLES} samples, "
            "0.0101 s); remove the utterance"
        )
    level = np.abs(to_float(samples))
    if (level >= 32767 / 32768).mean() > CLIPPED:
        notes.append("clipped")
    if level.max() > LOUD:
        raise UserError(f"{where}: samples up to {level.max():.0f}, full scale is 1; divide them")
    if level.max() < QUIET:
        notes.append("very quiet: its peak is below -40 dB of full scale")
    return Audio(samples, notes)


@contextlib.contextmanager
def _decoding(path: str | Path) -> Iterator[_Stream]:
    """The sound of a file. What cannot be decoded to its end is a `UserError`."""
    try:
        with contextlib.ExitStack() as stack:
            stream = _open(str(path), stack)
            if not RATES[0] <= stream.rate <= RATES[1]:
                raise UserError(f"{path}: a sample rate of {stream.rate} Hz; replace the file")
            yield stream
    except FileNotFoundError:
        raise UserError(f"{path}: no such audio file") from None
    except (soundfile.LibsndfileError, RuntimeError) as error:
        if not Path(path).exists():
            raise UserError(f"{path}: no such audio file") from None
        reason = str(error).split(": ", 1)[-1].rstrip(".")
        reason = "no frames of MPEG audio" if "possibly a pipe" in reason else reason
        raise UserError(f"{path}: not readable as audio ({reason}); replace the file") from None


def _open(path: str, stack: contextlib.ExitStack) -> _Stream:
    if os.path.exists(path):  # `_decoding` names what is missing
        require_file(path)
    with open(path, "rb") as opened:
        start = opened.read(16)
    form = next((form for mark, form in MARKS.items() if re.match(mark, start, re.S)), None)
    if form:
        return _ffmpeg(path, form, stack)
    try:
        source: Any = stack.enter_context(_riff(path) or contextlib.nullcontext())
        if start.startswith(containers.FLAC):
            source = stack.enter_context(containers.Unsized(path))
        file = stack.enter_context(_Forward(path if source is None else source))
    except soundfile.LibsndfileError:
        form = FFMPEG.get(os.path.splitext(path)[1].lower())
        if form is None or not os.path.exists(path):
            raise
        return _ffmpeg(path, form, stack)
    if "MPEG" in file.subtype:
        return _mp3(path, file, source, stack)
    if file.format == "OGG":
        containers.require_pages(path)
    if file.format == "CAF":
        containers.require_chunks(path)
    dtype = "int16" if file.subtype in ("PCM_16", "PCM_S8", "PCM_U8") else "float32"
    promised = file.frames
    if file.format == "NIST":
        promised = containers.nist_frames(path)
    elif file.format == "FLAC":
        promised = getattr(source, "frames", promised)
    stream = _stream(path, file, dtype, promised)
    if isinstance(source, containers.Unsized) and file.format == "FLAC":
        return stream._replace(blocks=source.summed(stream.blocks))
    return stream


def _stream(path: str, file: soundfile.SoundFile, dtype: str, promised: int) -> _Stream:
    notes: list[str] = []
    blocks = _blocks(path, file, dtype, promised, notes)
    return _Stream(file.samplerate, file.channels, blocks, notes)


def _blocks(path: str, file: Any, dtype: str, promised: int, notes: list[str]) -> Iterator:
    """All that the decoder gives; fewer samples than `promised` are a cut file."""
    count = 0
    while True:
        block = file.read(BLOCK, dtype=dtype, always_2d=True)
        count += len(block)
        if len(block):
            yield block
        if len(block) < BLOCK:
            break
    notes += containers.require_right_length(path, file)
    if count < promised < UNKNOWN_FRAMES:
        raise containers.cut(path)
    if count > promised > 0 and file.format in ("FLAC", "NIST"):
        raise UserError(f"{path}: more sound than its header says; encode it again")


def _riff(path: str) -> io.BytesIO | containers.Patched | None:
    """What libsndfile should read in place of a WAV: its MP3 data, or it with a right length.

    None where it can read the file itself.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"RIFF" or file.read(8)[4:] != b"WAVE":
            return None
        tag = 0
        while len(chunk := file.read(8)) == 8:
            name, size = chunk[:4], int.from_bytes(chunk[4:], "little")
            if name == b"fmt ":
                tag = int.from_bytes(file.read(2), "little")
                file.seek(size + size % 2 - 2, os.SEEK_CUR)
                continue
            if name != b"data":
                file.seek(size + size % 2, os.SEEK_CUR)
                continue
            start = file.tell()
            left = os.fstat(file.fileno()).st_size - start
            if tag == 0x55:  # MP3
                return io.BytesIO(file.read(min(size, left) if size else left))
            if size or not left or left > 4 * MAX_VALUES:
                return None
            follows = file.read(8)
            if re.match(CHUNK, follows) and int.from_bytes(follows[4:], "little") <= left - 8:
                return None  # there is no sound: another chunk follows
            # The program that wrote it never came back to its header.
            file.seek(0)
            head = file.read(start - 4)
            lengths = ((start + left - 8).to_bytes(4, "little"), left.to_bytes(4, "little"))
            return containers.Patched(path, head[:4] + lengths[0] + head[8:] + lengths[1])
    return None


def _mp3(path: str, file: Any, source: Any, stack: contextlib.ExitStack) -> _Stream:
    """An MP3, whose length is that of its frames.

    libsndfile stops at the length that it guesses, but for a pipe, which has none. Where the table
    in the first frame counts all, libsndfile reads the file itself, without the encoder's delay.
    """
    if source is not None:
        data = source.getvalue()
    else:
        opened = stack.enter_context(Path(path).open("rb"))  # noqa: SIM115
        data = stack.enter_context(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    found = mpeg.frames(data)
    if found is None:
        raise UserError(f"{path}: MPEG audio, but not of layer III (MP3); convert the file")
    if found.lost:
        raise UserError(f"{path}: damaged (no MP3 frame at byte {found.lost}); replace the file")
    if found.cut or (found.declared or 0) > len(found.slices):
        raise containers.cut(path)
    if found.damaged:
        raise UserError(f"{path}: damaged (the table of its MP3 frames); replace the file")
    notes = ["began with what is no sound"] * found.skipped
    if found.declared == len(found.slices):
        stream = _stream(path, file, "float32", file.frames)
        return stream._replace(notes=notes)
    reading, writing = os.pipe()

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), open(writing, "wb") as pipe:
            for start, end in found.slices:
                pipe.write(data[start:end])

    feeder = threading.Thread(target=feed)
    stack.callback(feeder.join)
    stack.callback(os.close, reading)
    feeder.start()
    piped = stack.enter_context(_Forward(reading, closefd=False))
    # A decoder may need a frame or two to begin.
    promised = (len(found.slices) - 2) * found.samples
    return _stream(path, piped, "float32", promised)._replace(notes=notes)


def _ffmpeg(path: str, form: str, stack: contextlib.ExitStack) -> _Stream:
    """What FFmpeg reads, through PyAV."""
    try:
        import av
    except ImportError:
        raise UserError(
            f"{path}: libsndfile cannot read it; install FFmpeg's decoders: {INSTALL}"
        ) from None
    try:
        opened = stack.enter_context(Path(path).open("rb"))  # noqa: SIM115
        container = stack.enter_context(av.open(opened, format=form))
        streams = container.streams.audio
    except (av.FFmpegError, ValueError, OSError) as error:
        raise UserError(f"{path}: not readable as audio ({error}); replace the file") from None
    if len(streams) != 1:
        what = f"{len(streams)} tracks of sound; extract one" if streams else "no sound; remove it"
        raise UserError(f"{path}: holds {what}")
    stream = streams[0]
    if not stream.codec_context:
        raise UserError(f"{path}: not readable as audio (unknown codec); replace the file")
    rate, channels = stream.rate, stream.channels
    seconds = float(stream.duration * stream.time_base) if stream.duration else 0.0
    if form in ("aac", "amr"):
        seconds = 0.0  # FFmpeg guesses it from the first frames
    if form == "matroska" and len(container.streams) == 1:
        seconds = (container.duration or 0) / 1e6
    stack.callback(av.logging.set_level, av.logging.get_level())
    av.logging.set_level(av.logging.ERROR)  # where FFmpeg tells of files that end early
    av.logging.set_skip_repeated(False)
    logged = stack.enter_context(av.logging.Capture())
    if form == "caf":
        containers.require_chunks(path)

    def blocks() -> Iterator[np.ndarray]:
        flat = av.AudioResampler(format="flt", layout=stream.layout, rate=rate)
        count = 0
        try:
            for frame in container.decode(stream):
                for part in flat.resample(frame):
                    block = part.to_ndarray().reshape(-1, channels)
                    count += len(block)
                    yield block
        except (av.FFmpegError, ValueError) as error:
            raise UserError(f"{path}: not readable as audio ({error}); replace the file") from None
        if logged:
            raise UserError(f"{path}: damaged or cut short ({logged[0][2]}); replace the file")
        if count < (seconds - 0.15) * rate:
            raise containers.cut(path)

    return _Stream(rate, channels, blocks(), [])
