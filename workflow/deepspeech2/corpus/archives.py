"""Archives: tar, compressed or not, and zip. Their members are untrusted.

They are read as a stream. Members that are no plain files, that lead outside of the archive's
folder or unpack to more than is expected are refused, and so are damaged archives.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from deepspeech2.cli import UserError
from deepspeech2.files import remedy, require_file

FETCHED = "archive"  # the name that the workflow gives to a fetched archive
OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
CHUNK = 1 << 20  # bytes
MAX_HEADER = 1 << 20  # bytes; what tarfile reads at once for a long name
HEADERS, ROOM = 16 << 20, 8192  # bytes beside the members' content, and for each member
Chunks = Iterator[bytes]


class Limits(NamedTuple):
    """What an archive unpacks to at most, and what is expected in it."""

    members: int
    member_bytes: int
    total_bytes: int
    expected: str


LARGE = Limits(2_000_000, 4 << 30, 256 << 30, "any corpus")


def is_archive(path: Path) -> bool:
    """Whether a file begins like a tar, compressed or not, or like a zip."""
    require_file(path)
    with open(path, "rb") as file:
        start = file.read(512)
    for magic, opener in OPENERS.items():
        if start.startswith(magic):  # `members` names the damage
            with contextlib.suppress(*DAMAGE, EOFError, OSError), opener(path) as unpacked:
                return unpacked.read(512)[257:262] == b"ustar"
    return start.startswith((*OPENERS, b"PK\x03\x04")) or tarfile.is_tarfile(path)


def members(
    source: Path, limits: Limits, wanted: Callable[[str], bool] = lambda name: True
) -> Iterator[tuple[str, Chunks | None]]:
    """Name and content of each regular file, None where it is not wanted.

    A content is read before the next member is asked for. Raises `UserError` for what is unsafe or
    damaged.
    """
    if not source.exists():
        raise UserError(f"{source}: no such archive or folder")
    require_file(source)
    with _refusing_damage(source):
        read = _zip_members if zipfile.is_zipfile(source) else _tar_members
        for name, file, size in read(source, Guard(source, limits), wanted):
            yield name, None if file is None else _chunks(source, name, file, size)


def unpack(source: Path, folder: Path, limits: Limits = LARGE) -> Path:
    """Write an archive's files into an empty folder; returns the one folder that holds all."""
    for name, chunks in members(source, limits):
        path = folder.joinpath(*PurePosixPath(name).parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "xb") as file:
                file.writelines(chunks or ())
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise UserError(f"{source}: member {name!r:.200} is there twice") from None
        except ValueError as error:  # NUL bytes
            raise UserError(f"{source}: member {name!r:.200}: {error}") from None
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise UserError(f"{source}: member {name!r:.200}: {error.strerror}") from None
    while len(entries := list(folder.iterdir())) == 1 and entries[0].is_dir():
        folder = entries[0]
    return folder


class Guard:
    """Refuses members that leave the folder, and archives that unpack to too much."""

    def __init__(self, source: Path, limits: Limits):
        self.source, self.limits, self.count, self.total = source, limits, 0, 0

    def __call__(self, name: str, size: int) -> None:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if (
            not name
            or ".." in parts
            or name.startswith(("/", "\\"))
            or re.match(r"^[A-Za-z]:", name)
        ):
            raise UserError(f"{self.source}: member {name!r} points outside the archive's folder")
        self.count, self.total = self.count + 1, self.total + size
        most = self.limits
        fits = 0 <= size <= most.member_bytes and self.total <= most.total_bytes
        if self.count > most.members or not fits:
            raise UserError(
                f"{self.source}: unpacks to far more than {most.expected} (at member {name!r}: "
                f"{self.count} members, {self.total} bytes); this is not {most.expected}"
            )


@contextlib.contextmanager
def _refusing_damage(source: Path) -> Iterator[None]:
    """Damaged and hostile archives make the readers raise nearly anything."""
    try:
        yield
    except UserError:
        raise
    except (*DAMAGE, EOFError, ValueError, RuntimeError, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        again = remedy(source) if source.name == FETCHED else "fetch it again"
        raise UserError(
            f"{source}: not a whole tar or zip archive ({error!r:.200}); {again}"
        ) from None


def _chunks(source: Path, name: str, file: IO[bytes], size: int) -> Chunks:
    with _refusing_damage(source):
        left = size
        while chunk := file.read(min(CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise zipfile.BadZipFile(f"{name} is larger than it says")
            yield chunk
        if left:
            raise EOFError(f"{name} is smaller than it says")


def _tar_members(source: Path, guard: Guard, wanted) -> Iterator[tuple]:
    with open(source, "rb") as file:
        start = file.read(6)
    opened = next((o for magic, o in OPENERS.items() if start.startswith(magic)), open)
    with opened(source, "rb") as unpacked:
        stream = _Bounded(unpacked, guard)
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                if member.isdir():
                    guard(member.name, 0)
                    continue
                if not member.isreg():
                    raise UserError(
                        f"{source}: member {member.name!r} is a link or device, no file"
                    )
                guard(member.name, member.size)
                file = archive.extractfile(member) if wanted(member.name) else None
                yield member.name, file, member.size
                archive.members = []  # tarfile would remember every member
        stream.finish()


class _Bounded:
    """A stream that refuses large reads, and much that is no content of members.

    tarfile reads long names whole before they are seen, and takes a damaged header for the end.
    """

    def __init__(self, stream, guard: Guard):
        self._stream, self._guard, self._last = stream, guard, b""
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= max(MAX_HEADER, CHUNK) + tarfile.BLOCKSIZE:
            raise tarfile.ReadError("a header that is larger than any name")
        self._last = self._stream.read(size)
        if self.tell() > self._guard.total + ROOM * self._guard.count + HEADERS:
            raise tarfile.ReadError("headers or an end that are larger than any")
        return self._last

    def finish(self) -> None:
        """Read what follows the end's mark, where a compressed stream has its checksum."""
        if self._last != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("cut short or a damaged header, there is no end's mark")
        while self.read(CHUNK):
            if self._last.strip(b"\0"):
                raise tarfile.ReadError("another archive, or damage, behind its end")


def _zip_members(source: Path, guard: Guard, wanted) -> Iterator[tuple]:
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            guard(member.filename, member.file_size)
            if (member.external_attr >> 28) == 0xA:  # the file type bits of a symbolic link
                raise UserError(f"{source}: member {member.filename!r} is a link, no file")
            if member.is_dir():
                continue
            if not wanted(member.filename):
                yield member.filename, None, 0
                continue
            with archive.open(member) as file:
                yield member.filename, file, member.file_size
