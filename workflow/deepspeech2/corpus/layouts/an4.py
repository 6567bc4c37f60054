"""The layout `an4`: CMU's alphanumeric speech corpus (1991), in any of its packagings.

948 training utterances of 74 speakers and 130 test utterances of 10 others: spelled names,
addresses, numbers, dates and commands, 16 kHz, 16 bit, mono. The archive holds `etc/` with file
lists and transcriptions and `wav/<split>/<speaker>/<id>`, as headerless big-endian samples
(`.raw`), NIST Sphere (`.sph`) or RIFF (`.wav`). What identifies the corpus in every packaging is
the SHA-256 of each utterance's samples (little-endian int16).

Archives are untrusted. They are read as a stream and never unpacked: audio leaves this module as
samples under an id of letters, digits and dashes, so no member can choose where it is written.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import itertools
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Optional

import numpy as np

from deepspeech2.cli import UserError
from deepspeech2.corpus import OTHER, audio, folders, layouts
from deepspeech2.corpus.utterance import Utterance, held_out
from deepspeech2.files import remedy

SPLITS = {"an4_clstk": "train", "an4test_clstk": "test"}
MAX_MEMBERS = 20_000  # the largest packaging has about 1,200
MAX_MEMBER_BYTES = 4 << 20  # the longest utterance has 0.2 MB, the largest list 41 kB
MAX_TOTAL_BYTES = 512 << 20  # all audio has 92 MB
LOOKED_AT = 50  # members of an archive in which `claims` looks

FETCHED = "archive"  # the name that the workflow gives to a fetched archive
OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)

AUDIO_MEMBER = re.compile(
    r"(?:^|/)wav/(an4_clstk|an4test_clstk)/([A-Za-z0-9]+)/([A-Za-z0-9-]+)\.(raw|sph|wav)$"
)
AUDIO_FOLDER = re.compile(r"(?:^|/)wav/(?:an4_clstk|an4test_clstk)/[A-Za-z0-9]+/[^./][^/]*$")
TEXT_MEMBER = re.compile(r"(?:^|/)etc/an4_(?:train|test)\.transcription$")
UTTERANCE_ID = re.compile(r"[A-Za-z0-9-]+\)")
MAX_LINE = 10_000  # characters; the longest transcription has about 100


class Layout(layouts.Layout):
    """See the module. An utterance's `audio` is the member's name, which says its part."""

    parts = ("train", "val", "test")

    @classmethod
    def claims(cls, source: Path) -> str | None:
        if source.is_dir():
            found = source.glob("etc/*.transcription"), source.glob("*/etc/*.transcription")
            names = (path.relative_to(source).as_posix() for path in itertools.chain(*found))
        else:
            names = _first_names(source) if source.is_file() else ()
        return next(filter(TEXT_MEMBER.search, names), None)

    def read(self, keep: layouts.Keep) -> list[Utterance]:
        source, texts = self.source, {}
        utterances: dict[str, Utterance] = {}
        self.passed_over.clear()
        for name, data in _members(source):
            where = f"{source}: {name}"
            if data is None:
                lost = AUDIO_FOLDER.search(name) and folders.kind(name) == "audio"
                self.pass_over("unreadable" if lost else OTHER, where)
                continue
            match = AUDIO_MEMBER.search(name)
            if not match:
                for utterance, text in _transcripts(data, where):
                    if texts.setdefault(utterance, text) != text:
                        self.pass_over("duplicate", f"{where}: a second transcript of {utterance}")
                continue
            _, speaker, utterance, suffix = match.groups()
            if utterance in utterances:
                raise UserError(f"{where}: a second recording of utterance {utterance}")
            keep(utterance, audio.Audio(_samples(data, suffix, where), []))
            utterances[utterance] = Utterance(utterance, name, speaker=speaker)
        if not utterances:
            raise UserError(
                f"{source}: no AN4 audio in it (looked for wav/an4_clstk/<speaker>/<id>.raw, .sph, "
                ".wav); give AN4's archive or its unpacked folder"
            )
        for name in sorted(texts.keys() - utterances.keys()):
            self.pass_over("no_audio", f"utterance {name}")
        found = []
        for name, utterance in utterances.items():
            if name not in texts:
                self.pass_over("no_text", f"utterance {name}, which has no transcript in etc/")
            elif not (texts[name] or self.rules.empty_references):
                self.pass_over("empty_text", f"utterance {name}, which has no transcript in etc/")
            else:
                found.append(utterance._replace(text=texts[name]))
        self.require_allowed()
        return found

    def files(self) -> list[Path]:
        source = self.source
        return layouts.regular(_files(source) if source.is_dir() else [source])

    def parts_of(self, utterances: Sequence[Utterance]) -> dict[str, str]:
        parts = {u.id: SPLITS[AUDIO_MEMBER.search(u.audio).group(1)] for u in utterances}
        val = held_out(u.speaker for u in utterances if parts[u.id] == "train")
        for utterance in utterances:
            if parts[utterance.id] == "train" and utterance.speaker in val:
                parts[utterance.id] = "val"
        return parts


Members = Iterator[tuple[str, Optional[bytes]]]  # names and contents


def _matters(name: str) -> bool:
    return bool(AUDIO_MEMBER.search(name) or TEXT_MEMBER.search(name))


def _members(source: Path) -> Members:
    """Name and bytes of each regular file, None where they do not matter.

    Every unsafe member is refused.
    """
    if source.is_dir():
        yield from _folder_members(source)
        return
    if not source.exists():
        raise UserError(f"{source}: no such archive or folder")
    try:
        if zipfile.is_zipfile(source):
            yield from _zip_members(source)
        else:
            yield from _tar_members(source)
    except UserError:
        raise
    # Damaged and hostile archives make the readers raise nearly anything.
    except (*DAMAGE, EOFError, ValueError, RuntimeError, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        again = remedy(source) if source.name == FETCHED else "fetch it again"
        raise UserError(
            f"{source}: not a whole tar or zip archive ({error!r:.200}); {again}"
        ) from None


class _Guard:
    """Refuses members that leave the folder, and archives that unpack to too much."""

    def __init__(self, source: Path):
        self.source, self.count, self.total = source, 0, 0

    def __call__(self, name: str, size: int) -> None:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if ".." in parts or name.startswith(("/", "\\")) or re.match(r"^[A-Za-z]:", name):
            raise UserError(f"{self.source}: member {name!r} points outside the archive's folder")
        self.count, self.total = self.count + 1, self.total + size
        if self.count > MAX_MEMBERS or size > MAX_MEMBER_BYTES or self.total > MAX_TOTAL_BYTES:
            raise UserError(
                f"{self.source}: unpacks to far more than AN4 (at member {name!r}: {self.count} "
                f"members, {self.total} bytes); this is not AN4"
            )


def _tar_members(source: Path) -> Members:
    guard = _Guard(source)
    with open(source, "rb") as file:
        start = file.read(6)
    opened = next((o for magic, o in OPENERS.items() if start.startswith(magic)), open)
    with (
        opened(source, "rb") as stream,
        tarfile.open(fileobj=_Bounded(stream), mode="r:") as archive,
    ):
        for member in archive:
            if member.isdir():
                guard(member.name, 0)
                continue
            if not member.isreg():
                raise UserError(f"{source}: member {member.name!r} is a link or device, no file")
            guard(member.name, member.size)
            wanted = _matters(member.name)
            yield member.name, archive.extractfile(member).read(member.size) if wanted else None
            archive.members = []  # tarfile would remember every member


class _Bounded:
    """A stream that refuses large reads: tarfile reads long names whole before they are seen."""

    def __init__(self, stream):
        self._stream, self.seek, self.tell = stream, stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_MEMBER_BYTES + tarfile.BLOCKSIZE:
            raise tarfile.ReadError("a header that is larger than any file of AN4")
        return self._stream.read(size)


def _zip_members(source: Path) -> Members:
    guard = _Guard(source)
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            guard(member.filename, member.file_size)
            if (member.external_attr >> 28) == 0xA:  # the file type bits of a symbolic link
                raise UserError(f"{source}: member {member.filename!r} is a link, no file")
            if not _matters(member.filename):
                if not member.is_dir():
                    yield member.filename, None
                continue
            with archive.open(member) as file:
                data = file.read(member.file_size + 1)
            if len(data) > member.file_size:
                raise zipfile.BadZipFile(f"{member.filename} is larger than it says")
            yield member.filename, data


def _folder_members(source: Path) -> Members:
    guard = _Guard(source)
    for folder, files, refused in folders.walk(source):
        for path in (folder / name for name in refused):
            raise UserError(f"{path}: a link that leaves the folder, or leads nowhere")
        for path in (folder / name for name in files):
            name = path.relative_to(source).as_posix()
            if _matters(name) and path.is_file():
                guard(name, path.stat().st_size)
                yield name, path.read_bytes()
            else:
                yield name, None


def _files(source: Path) -> list[Path]:
    return [folder.path / name for folder in folders.walk(source) for name in folder.files]


def _first_names(archive: Path) -> list[str]:
    """Names of the first members, as far as it is an archive."""
    try:
        return [name for name, _ in itertools.islice(_members(archive), LOOKED_AT)]
    except UserError:
        return []


def _samples(data: bytes, suffix: str, where: str) -> np.ndarray:
    """int16 samples (n,) of one recording."""
    if suffix == "raw":
        if len(data) % 2:
            raise UserError(f"{where}: cut short (an odd number of bytes); fetch the archive again")
        samples = np.frombuffer(data, ">i2").astype(np.int16)
    else:
        samples = _decode(data, where)
    audio.check(samples, where)
    if len(samples) < audio.MIN_SAMPLES:
        raise UserError(f"{where}: only {len(samples)} samples long; fetch the archive again")
    return samples


def _decode(data: bytes, where: str) -> np.ndarray:
    import soundfile  # not needed for the raw packaging

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if (file.samplerate, file.channels) != (audio.SAMPLE_RATE, 1):
                raise UserError(f"{where}: {file.samplerate} Hz, {file.channels} channels: not AN4")
            return file.read(dtype="int16")
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise UserError(f"{where}: not readable as audio ({error})") from None


def _transcripts(data: bytes, where: str) -> Iterator[tuple[str, str]]:
    """Id and transcript of lines like `<s> YES </s> (an251-fash-b)`, with or without the tags."""
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{where}: not a text file") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        text, _, utterance = line[:MAX_LINE].strip().rpartition("(")
        if not UTTERANCE_ID.fullmatch(utterance):
            raise UserError(f"{where}: line {number}: expected `TEXT (id)`, found {line[:60]!r}")
        words = [word for word in text.split() if word not in ("<s>", "</s>")]
        yield utterance[:-1], " ".join(words)
