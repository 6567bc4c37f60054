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
import os
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
# Bytes of a tar's header with what it has of long names, which are read whole.
MAX_HEADER, MEAN_HEADER, MAX_NAME = 1 << 20, 1 << 11, 1 << 12
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
        with open(source, "rb") as opened:
            zipped = opened.read(2) == b"PK"  # a tar may end with a zip
        read = _zip_members if zipped and zipfile.is_zipfile(source) else _tar_members
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
        if len(name) > MAX_NAME:
            raise UserError(f"{self.source}: a member's name has {len(name)} characters")
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if (
            not name
            or ".." in parts
            or name.startswith(("/", "\\"))
            or re.match(r"^[A-Za-z]:", name)
        ):
            raise UserError(f"{self.source}: member {name!r} points outside the archive's folder")
        self.count, self.total = self.count + 1, self.total + size
        fits = self.count <= self.limits.members and 0 <= size <= self.limits.member_bytes
        self.require(fits and self.total <= self.limits.total_bytes, name)

    def require(self, fits: bool, name: str = "") -> None:
        """Refuse what does not fit; `name` is the member at which that is found."""
        if not fits:
            at = f"at member {name!r:.200}: " if name else ""
            raise UserError(
                f"{self.source}: unpacks to far more than {self.limits.expected} ({at}{self.count} "
                f"members, {self.total} bytes); this is not {self.limits.expected}"
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
        stream, headers = _Bounded(unpacked, guard), 0
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                headers += MAX_HEADER - stream.left
                guard.require(headers <= guard.limits.members * MEAN_HEADER, member.name)
                stream.left = max(0, member.size)
                guard(member.name, 0 if member.isdir() else member.size)
                if not (member.isreg() or member.isdir()):
                    raise UserError(f"{source}: member {member.name!r} is a link or device")
                if member.isreg():
                    file = archive.extractfile(member) if wanted(member.name) else None
                    yield member.name, file, member.size
                archive.members = []  # tarfile would remember every member
                stream.left = MAX_HEADER
        # tarfile takes a damaged header for the end, and stops before a compressed file's checksum.
        if stream.last != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("cut short, or a damaged header")
        while rest := unpacked.read(CHUNK):
            guard.require(unpacked.tell() <= guard.limits.total_bytes)
            if rest.count(0) < len(rest):
                raise tarfile.ReadError("data behind its end")


class _Bounded:
    """A stream of at most what `guard` allows, of which the next `left` bytes may be read.

    tarfile reads long names whole before they are seen. `last` is what was read last.
    """

    def __init__(self, stream, guard: Guard):
        self._stream, self.tell, self._guard = stream, stream.tell, guard
        self.left, self.last = MAX_HEADER, b""

    def seek(self, position: int) -> int:
        self._guard.require(position <= self._guard.limits.total_bytes)
        return self._stream.seek(position)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.left:
            raise tarfile.ReadError("a header that is larger than any name")
        self.last = self._stream.read(size)
        self.left -= size
        return self.last


def _zip_members(source: Path, guard: Guard, wanted) -> Iterator[tuple]:
    with zipfile.ZipFile(source) as archive, open(source, "rb") as file:
        # zipfile does not look how many members there should be; 0xFFFF: more than fit there.
        file.seek(-min(source.stat().st_size, 1 << 16), os.SEEK_END)
        listed = int.from_bytes(file.read().rpartition(b"PK\x05\x06")[2][6:8], "little")
        if listed not in (0xFFFF, len(archive.infolist()) & 0xFFFF):
            raise zipfile.BadZipFile(f"{len(archive.infolist())} of {listed} members found")
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
