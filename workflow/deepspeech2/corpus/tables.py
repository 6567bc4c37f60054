"""Tables with a line of headings, separated by tabs, commas or semicolons, and JSON lines.

How a table is written is told from its headings and its first row. What does not fit stops with the
line's number; nothing is guessed, cut or joined. Files may be compressed with gzip.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from deepspeech2.cli import UserError
from deepspeech2.files import parse_json, require_file

SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons"}
MAX_LINE = 1 << 26  # bytes
MAX_SECONDS = 1e7
BYTE_ORDER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


class Dialect(NamedTuple):
    """How a table is written: what separates its cells, and whether these may be in quotes."""

    separator: str
    quoted: bool

    def cells(self, line: str) -> list[str]:
        """The cells of a line. Raises `csv.Error` for quotes that do not fit."""
        if not self.quoted:
            return line.split(self.separator)
        return next(csv.reader([line], delimiter=self.separator, strict=True))

    def __str__(self) -> str:
        return f"separated by {SEPARATORS[self.separator]}{', quoted' if self.quoted else ''}"


def lines(table: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not blank, whatever ends it (LF, CR LF or CR)."""
    number = 0
    try:
        with opened(table) as file:
            while data := file.readline(MAX_LINE + 1):
                if len(data) > MAX_LINE:
                    raise UserError(f"{table}: line {number + 1}: too long ({MAX_LINE} bytes)")
                if not number and data[:2] in BYTE_ORDER_MARKS:
                    found = BYTE_ORDER_MARKS[data[:2]]
                    raise UserError(f"{table}: {found} text; save it as UTF-8")
                text = data.decode("utf-8" if number else "utf-8-sig")
                if "\0" in text:
                    raise UserError(f"{table}: line {number + 1}: NUL bytes; save it as UTF-8")
                for line in re.split(r"\r\n|\r|\n", text.removesuffix("\n").removesuffix("\r")):
                    number += 1
                    if line.strip():
                        yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{table}: not a whole gzip file ({error}); fetch it again") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{table}: line {number + 1}: not UTF-8 text ({error.reason}); convert it"
        ) from None


def opened(table: Path) -> IO[bytes]:
    """A file's bytes, decompressed if it is named `.gz`."""
    require_file(table)
    return gzip.open(table) if table.suffix == ".gz" else open(table, "rb")


def records(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each of a file's JSON lines."""
    for number, line in lines(table):
        try:
            found, why = parse_json(line), ""
        except (ValueError, RecursionError) as error:
            found, why = None, f" ({error!s:.100})"
        if not isinstance(found, dict):
            raise UserError(f"{table}: line {number}: not a JSON object{why}")
        yield number, found


def text_of(value: Any, key: str, where: str) -> str:
    """A text of JSON; nothing where it is missing."""
    if not isinstance(value, (str, type(None))):
        raise UserError(f"{where}: {key}: {value!r:.100} is not a text")
    return value or ""


def seconds(value: Any, key: str, where: str) -> float:
    """A time of JSON, or of a cell."""
    try:
        found = float(value) if isinstance(value, (int, float, str)) else -1.0
    except (ValueError, OverflowError):
        found = -1.0
    if isinstance(value, bool) or not 0 <= found < MAX_SECONDS:
        raise UserError(f"{where}: {key}: {value!r:.100} is not a number of seconds")
    return found


def rows(
    table: Path,
    needed: Sequence[str],
    separators: str = "".join(SEPARATORS),
    quoted: bool | None = None,
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells, by heading, of each row.

    The headings must have the columns `needed`, of which the first holds no quotes of its own: a
    table with tabs is quoted (`quoted` None) where its heading or first cell is. Raises `UserError`
    for other headings, for a row with more or fewer cells than they, and for what is not UTF-8.
    """
    numbered = lines(table)
    number, line = next(numbered, (0, ""))
    headings, dialect = _headings(table, line, needed, separators, quoted)
    decided = quoted is not None or dialect.quoted
    for number, line in numbered:
        where = f"{table}: line {number}"
        if not decided:
            first = dict(zip(headings, line.split(dialect.separator))).get(needed[0], "")
            dialect, decided = dialect._replace(quoted=_is_quoted(first)), True
        try:
            cells = dialect.cells(line)
        except csv.Error as error:
            raise UserError(
                f"{where}: quotes that do not fit a table {dialect} ({error}); a cell in quotes "
                "stays on one line, and a quote in it is doubled"
            ) from None
        if len(cells) != len(headings):
            raise UserError(
                f"{where}: {len(cells)} cells under {len(headings)} headings (the table is "
                f"{dialect}); correct the line"
            )
        if quoted is None and not dialect.quoted and any(map(_is_escaped, cells)):
            raise UserError(
                f"{where}: a cell in quotes with doubled quotes in it, in a table without quotes; "
                "save it without any, or separated by commas"
            )
        if any(cells):
            yield number, dict(zip(headings, cells))


def _headings(
    table: Path, line: str, needed: Sequence[str], separators: str, quoted: bool | None
) -> tuple[list[str], Dialect]:
    for separator in separators:
        unquoted = quoted is False or (separator == "\t" and '"' not in line and not quoted)
        dialect = Dialect(separator, not unquoted)
        try:
            found = dialect.cells(line)
        except (csv.Error, StopIteration):
            continue
        if not set(needed) <= set(found):
            continue
        twice = next((name for name in found if name and found.count(name) > 1), None)
        if twice:
            raise UserError(f"{table}: the heading {twice!r:.100} appears twice; rename one")
        return found, dialect
    kinds = ", ".join(SEPARATORS[separator] for separator in separators)
    raise UserError(
        f"{table}: line 1: needs the headings {' and '.join(needed)}, separated by one of {kinds}; "
        f"found {line!r:.100}"
    )


def _is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell.startswith('"') and cell.endswith('"')


def _is_escaped(cell: str) -> bool:
    return _is_quoted(cell) and '""' in cell[1:-1]


def starts(table: Path) -> bytes:
    """The first line of a file, without a byte order mark; nothing of what is none."""
    if not table.is_file():
        return b""
    try:
        with opened(table) as file:
            start = file.readline(1 << 16).removeprefix(b"\xef\xbb\xbf")
    except (OSError, EOFError, zlib.error):
        return b""
    return re.split(rb"[\r\n]", start, maxsplit=1)[0]


def has_headings(table: Path, *needed: str) -> bool:
    """Whether a file is a table with these headings. Little of it is read."""
    try:
        line = starts(table).decode()
        return bool(_headings(table, line, needed, "".join(SEPARATORS), None))
    except (UserError, UnicodeDecodeError):
        return False


def has_keys(table: Path, *keys: str) -> bool:
    """Whether a file has JSON lines, the first with these keys. Little of it is read."""
    line = starts(table)
    return line.lstrip(b" \t")[:1] == b"{" and all(f'"{key}"'.encode() in line for key in keys)
