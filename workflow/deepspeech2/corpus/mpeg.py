"""The frames of an MP3 stream, counted: no header says reliably how long one is.

An MP3 is a row of frames. A first one may hold a table instead of sound (Xing, Info, VBRI), which
tells how many frames follow; streaming encoders write none, and of files that were put together it
counts the first only. Source: ISO/IEC 11172-3 and 13818-3 (frame header).
"""

from __future__ import annotations

import re
from typing import NamedTuple

KBIT_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # MPEG 1, layer III
KBIT_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # MPEG 2 and 2.5
RATES = (44100, 48000, 32000)  # Hz, of MPEG 1
TABLES = (b"Xing", b"Info", b"VBRI")
MARK = re.compile(rb"\xff|ID3|TAG|APETAGEX")
SUMMING = (b"LAME", b"Lavf", b"Lavc")  # encoders that write a sum behind their names
NAME, SUM = 120, 34  # bytes from the table to the encoder's name, from there to the sum
FFMPEG_SUMS = 190  # bytes, wherever the sum is; LAME those before it
TABLE_PLACES = (13, 21, 36)  # in a frame
TABLE_WITHIN = 44  # bytes of a frame in which a table's name begins


class Frames(NamedTuple):
    """The frames with sound as slices of the data, and what is known of them.

    `declared` is how many the table tells, None without one; `cut` says that the last lacks bytes,
    `lost` is where between frames something else than a tag is, 0 if nowhere. `skipped` says
    that something comes before them, `damaged` that a table is not as it was written.
    """

    slices: list[tuple[int, int]]
    samples: int  # of each channel in a frame
    declared: int | None
    cut: bool
    lost: int
    skipped: bool
    damaged: bool


def frames(data) -> Frames | None:
    """All frames of layer III in bytes-like `data`; None where there are none.

    What merely looks like a frame, in a picture of a tag or other bytes, has no other behind it.
    """
    slices: list[tuple[int, int]] = []
    declared, cut, samples, place = None, False, 0, _after_tags(data, 0)
    lost, sure, stray, skipped, damaged = 0, False, 0, False, False
    while place + 4 <= len(data):
        header = _header(data[place : place + 4])
        if header is None or not (sure or _follows(data, place + header[0])):
            skipped = skipped or (not slices and bool(data[place]))
            stray = stray or place
            sure, place = False, _after_tags(data, _next(data, place))
            continue
        lost = lost or (stray if slices else 0)
        length, samples = header
        if place + length > len(data):
            cut = True
            break
        start = data[place : place + TABLE_WITHIN]
        table = next((start.index(name) for name in TABLES if name in start), None)
        if table is None:
            slices.append((place, place + length))
        elif declared is None and not slices:
            declared = _declared(data[place + table : place + table + 18])
        if table is not None or len(slices) == 1:
            damaged = damaged or _is_damaged(bytes(data[place : place + length]), table)
        behind = _after_tags(data, place + length)
        sure, stray, place = behind == place + length, 0, behind
    return Frames(slices, samples, declared, cut, lost, skipped, damaged) if slices or cut else None


def _follows(data, place: int) -> bool:
    """Whether a frame, a tag or the end of the data is at `place`."""
    four = bytes(data[place : place + 4])
    return place == len(data) or four[:3] in (b"TAG", b"ID3", b"APE") or _header(four) is not None


def _after_tags(data, place: int) -> int:
    """The place behind the tags (ID3v2, ID3v1, APE) that begin at `place`, if any do."""
    while True:
        tag = bytes(data[place : place + 32])
        if tag[:3] == b"ID3" and len(tag) == 32:
            size = 0
            for byte in tag[6:10]:
                size = size << 7 | byte & 0x7F
            place += 10 + size + 10 * (tag[5] >> 4 & 1)
        elif tag[:8] == b"APETAGEX" and len(tag) == 32:
            place += 32 + int.from_bytes(tag[12:16], "little")
        elif tag[:3] == b"TAG":
            place += 128
        else:
            return place


def _header(four: bytes) -> tuple[int, int] | None:
    """Length in bytes and samples a channel of the frame that begins so, if one does."""
    word = int.from_bytes(four, "big")
    version, layer, kbit, rate = word >> 19 & 3, word >> 17 & 3, word >> 12 & 15, word >> 10 & 3
    if word >> 21 != 0x7FF or layer != 1 or version == 1 or kbit in (0, 15) or rate == 3:
        return None
    first = version == 3
    hertz = RATES[rate] >> (0 if first else 1 if version == 2 else 2)
    bits = 1000 * (KBIT_1 if first else KBIT_2)[kbit]
    return (144 if first else 72) * bits // hertz + (word >> 9 & 1), 1152 if first else 576


def _next(data, place: int) -> int:
    """Where another frame or tag may begin behind `place`."""
    found = MARK.search(data, place + 1)
    return found.start() if found else len(data)


def _declared(table: bytes) -> int | None:
    if table[:4] == b"VBRI":
        return int.from_bytes(table[14:18], "big")
    has_count = len(table) >= 12 and table[7] & 1
    return int.from_bytes(table[8:12], "big") if has_count else None


def _is_damaged(frame: bytes, table: int | None) -> bool:
    """Whether a table has another sum than LAME or FFmpeg wrote, or a frame one without name."""
    if table is None:
        return _has_shares(frame)
    place = table + NAME
    if frame[place : place + 4] not in SUMMING:
        return False
    place += SUM
    told = int.from_bytes(frame[place : place + 2], "big")
    blank = (frame[:place] + bytes(2) + frame[place + 2 :]).ljust(FFMPEG_SUMS, b"\0")
    return told not in (0, _crc(frame[:place]), _crc(blank[:FFMPEG_SUMS]))


def _crc(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 * (crc & 1)
    return crc


def _has_shares(frame: bytes) -> bool:
    """Whether a frame has the hundred rising numbers of a table."""
    for place in TABLE_PLACES:
        shares = frame[place + 16 : place + 116]
        rises = sum(low <= high for low, high in zip(shares, shares[1:]))
        if len(shares) == 100 and rises >= 90 and max(shares[80:]) > min(shares[:20]) + 100:
            return True
    return False
