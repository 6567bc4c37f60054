"""What the containers of sound say of their length, and the refusal of those that lack some.

A length is a hint, and proof of a cut file only where it is plausible (`UNKNOWN_LENGTH`).
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import zlib
from collections.abc import Iterator

import numpy as np
import soundfile

from deepspeech2.cli import UserError

CHUNKS = "RF64|riff|data|SSND|Data Size|Riff size|(RIFF|RIFX|FORM)"  # the last are of all chunks
CHUNK_LENGTH = rf"^\s*(?:{CHUNKS})\s*:\s*(\d+) \(should be (\d+)\)"
UNKNOWN_LENGTH = 0x7FFFF000  # from here on, a length was written by a program that streams
# Where libsndfile's parser stopped, or an AU's sound ends.
STOPPED = r"(?:Unknown chunk marker|Have 0 marker).* at position (\w+)"
AU_END = r"\.snd\s+Data Offset : (\d+)\s+Data Size   : (\d+)$"
STRAY, LOOKED_AT = 1 << 10, 1 << 20  # bytes that do not matter; bytes read behind the sound
SOUND_LENGTH = r"^\s*SSND : \d+$"  # of an AIFF, which libsndfile did not correct
STOPPED_SHORT = r"calculated from length of 'SSND' chunk \((\d+)\)"
COUNTS = r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)"
WIDTHS = {
    "PCM_U8": (1,),
    "PCM_16": (2,),
    "PCM_24": (3, 4),
    "PCM_32": (4,),
    "FLOAT": (4,),
    "DOUBLE": (8,),
    "ULAW": (1,),
    "ALAW": (1,),
}
TAGS = (b"TAG", b"ID3", b"id3 ", b"APETAGEX")  # known not to be sound
# Bytes with 36 bits of a FLAC's number of samples, and with the MD5 of these, or zeros.
FLAC, FLAC_TOTAL, FLAC_SUM = b"fLaC", slice(21, 26), slice(26, 42)
MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
OGG_FIRST, OGG_LAST = 2, 4  # flags of a page


def cut(path: str, why: str = "the header promises more audio") -> UserError:
    """The refusal of a file that ends too early."""
    return UserError(f"{path}: cut short ({why}); replace the file")


def nist_frames(path: str) -> int:
    """How many samples of each channel a NIST Sphere file's header promises."""
    with open(path, "rb") as file:
        found = re.search(rb"^sample_count -i (\d{1,18})\s*$", file.read(1024), re.M)
    if not found:
        raise UserError(f"{path}: no sample_count in its header; replace the file")
    return int(found.group(1))


def require_chunks(path: str) -> None:
    """Refuse a CAF file that ends within a chunk; one of the length -1 goes on to the end."""
    place, end = 8, os.path.getsize(path)
    with open(path, "rb") as file:
        while place + 12 <= end:
            file.seek(place + 4)
            size = int.from_bytes(file.read(8), "big", signed=True)
            place = end if size < 0 else place + 12 + size
    if place > end:
        raise cut(path)


def require_pages(path: str) -> None:
    """Refuse an Ogg file that lacks its last page or has a damaged one, and several in a row.

    libsndfile leaves out what is damaged, and all but the first.
    """
    flags, begun = 0, False
    with open(path, "rb") as file:
        while (head := file.read(27))[:4] == b"OggS":
            sizes = file.read(head[26]) if len(head) == 27 else b""
            body = file.read(sum(sizes))
            if len(body) < sum(sizes) or len(head) < 27 or len(sizes) < head[26]:
                raise cut(path, "its last page lacks bytes")
            told = int.from_bytes(head[22:26], "little")
            if _ogg_crc(head[:22] + bytes(4) + head[26:] + sizes + body) != told:
                raise UserError(f"{path}: damaged (an Ogg page of another sum); replace the file")
            flags, begun = head[5], begun or not head[5] & OGG_FIRST
            if begun and flags & OGG_FIRST:
                raise UserError(f"{path}: several Ogg recordings in one file; part or convert it")
    if not flags & OGG_LAST:
        raise cut(path, "its last page is missing")


def _ogg_crc(page: bytes) -> int:
    """zlib's polynomial without its inversions, most significant bit first."""
    crc = zlib.crc32(page.translate(MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)


class Patched(io.FileIO):
    """A file that begins with other bytes, `head`, than are stored."""

    def __init__(self, path: str, head: bytes = b""):
        super().__init__(path)
        self.head = head

    def readinto(self, buffer) -> int:
        """As of any file."""
        place, count = self.tell(), super().readinto(buffer)
        head = self.head[place : place + count]
        memoryview(buffer)[: len(head)] = head
        return count


class Unsized(Patched):
    """A FLAC as if its writer had not known its length (`frames`), where libsndfile would stop."""

    def __init__(self, path: str):
        super().__init__(path)
        head = super().read(FLAC_SUM.stop).ljust(FLAC_SUM.stop, b"\0")
        self.frames = int.from_bytes(head[FLAC_TOTAL], "big") % (1 << 36)
        self._sum = head[FLAC_SUM]
        self._bytes, rest = divmod(int.from_bytes(head[20:22], "big") >> 4 & 31, 8)
        self._sum = self._sum if rest == 7 else bytes(16)  # of 12 bits and the like: not checked
        self.head = head[: FLAC_TOTAL.start] + bytes([head[FLAC_TOTAL.start] & 0xF0]) + bytes(4)
        self.seek(0)

    def summed(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """The decoded blocks, int16 or float32; at the end they must have the sum of the header."""
        found = hashlib.md5(usedforsecurity=False)
        for block in blocks:
            if block.dtype == np.float32:
                values = np.rint(block * np.float32(1 << 23)).astype("<i4")
            else:
                values = block.astype("<i4") >> (0 if self._bytes else 8)
            octets = values.view(np.uint8).reshape(-1, 4)[:, : self._bytes + 1]
            found.update(np.ascontiguousarray(octets).data)
            yield block
        if any(self._sum) and found.digest() != self._sum:
            raise UserError(f"{self.name}: damaged (its sound has another sum); replace the file")


def require_right_length(path: str, sound: soundfile.SoundFile) -> list[str]:
    """Refuse a file whose header promises more sound than there is, or leaves some out; notes.

    libsndfile tells lengths that it corrected, and where no chunk begins behind the sound.
    """
    told = sound.extra_info
    shown = {
        name: re.search(rf"^\s*{name}\s*: (\d+)", told, re.M) for name in ("Block Align", "Frames")
    }
    align, frames = (int(found[1]) if found else None for found in shown.values())
    widths = WIDTHS.get(sound.subtype)
    if align is not None and widths and align / sound.channels not in widths:
        raise UserError(
            f"{path}: {align} bytes a sample by its header, but {sound.subtype}; correct the header"
        )
    for whole, declared, actual in re.findall(CHUNK_LENGTH, told, re.M):
        stray = STRAY if whole and sound.format in ("WAV", "WAVEX", "AIFF") else 0
        if int(actual) + stray < int(declared) < UNKNOWN_LENGTH:
            raise cut(path)
    counted = re.search(STOPPED_SHORT, told)
    stopped, au = re.search(STOPPED, told), re.search(AU_END, told, re.M)
    ends = stopped and sound.format != "W64" and re.search("Exiting parser|Have 0 marker", told)
    if au or ends:
        with open(path, "rb") as file:
            file.seek(int(au[1]) + int(au[2]) if au else int(stopped[1], 0))
            data = file.read(LOOKED_AT).strip(b"\0")
        if len(data) > STRAY:
            raise UserError(
                f"{path}: {len(data)} bytes or more behind its sound; correct the header"
            )
        if data and not data.startswith(TAGS):
            return ["have bytes behind their sound, which are left out"]
    if counted and (frames < UNKNOWN_LENGTH or re.search(SOUND_LENGTH, told, re.M)):
        if int(counted[1]) < frames < UNKNOWN_LENGTH:
            raise cut(path)
        raise _two_counts(path, frames, counted[1])
    counts = re.search(COUNTS, told)
    if counts and 0 < int(counts[2]) < UNKNOWN_LENGTH:
        raise _two_counts(path, counts[2], counts[1])
    return []


def _two_counts(path: str, told: int | str, counted: str) -> UserError:
    return UserError(f"{path}: a header that tells of {told} samples and of {counted}; correct it")
