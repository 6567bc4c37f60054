"""Language models as files: ARPA n-grams of characters or words, and the index of one."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from deepspeech2 import files
from deepspeech2.cli import UserError
from deepspeech2.files import read_sealed, require_unaltered

UNITS = ("character", "word")
SPACE = "|"
SPACES = (SPACE, "<space>", "\u2581")  # names of the space in models of characters
BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
SPECIAL = {BEGIN, END, UNKNOWN, "<UNK>"}
MAX_BYTES = 1 << 34  # of an unpacked ARPA
MAX_LINE = 10_000  # bytes
Grams = dict[tuple[str, ...], float]  # log10 probabilities, or weights of backing off


class LanguageModel(NamedTuple):
    """A language model: its ARPA file, and whether its unit is character or word."""

    path: Path
    unit: str


def write(grams: Sequence[Grams], weights: Grams) -> Iterator[str]:
    """The lines of an ARPA file."""
    yield "\\data\\\n"
    yield from (f"ngram {size}={len(found)}\n" for size, found in enumerate(grams, 1))
    for size, found in enumerate(grams, 1):
        yield f"\n\\{size}-grams:\n"
        for gram, value in sorted(found.items()):
            weight = f"\t{weights[gram]:.5f}" if gram in weights else ""
            yield f"{value:.5f}\t{' '.join(gram)}{weight}\n"
    yield "\n\\end\\\n"


def lines(path: Path) -> Iterator[str]:
    """The lines of an ARPA file, plain or gzipped, of at most MAX_BYTES."""
    files.require_file(path)
    total = 0
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            content = gzip.GzipFile(fileobj=file) if packed else file
            while line := content.readline(MAX_LINE + 1):
                total += len(line)
                if len(line) > MAX_LINE or total > MAX_BYTES:
                    raise UserError(f"{path}: not an ARPA file, or too long a one")
                yield line.decode("utf-8").rstrip("\r\n") + "\n"
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a whole ARPA file, plain or gzipped ({error})") from None


def check(content: Iterable[str], path: Path, units: list[str]) -> Iterator[str]:
    """The lines of an ARPA file as they are, its single units put into `units`.

    Raises `UserError` where they are none, or not as many as its head says.
    """
    promised: dict[int, int] = {}
    size, count, ended = -1, 0, False
    number = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|-inf"
    for place, line in enumerate(content, 1):
        text = line.strip()
        if not text.replace("\t", " ").isprintable():
            raise UserError(f"{path}: line {place}: a character that is no text; remove it")
        head = re.fullmatch(r"\\(\d+)-grams:", text)
        if (head or text == "\\end\\") and (size < 0 or count != promised.get(size, 0)):
            raise UserError(
                f"{path}: line {place}: not an ARPA file, or a cut one: {count} n-grams of order "
                f"{size}, not {promised.get(size)}"
            )
        if text == "\\data\\" and size < 0:
            size = 0
        elif size == 0 and (found := re.fullmatch(r"ngram (\d+)\s*=\s*(\d+)", text)):
            promised[int(found[1])] = int(found[2])
        elif head:
            size, count = size + 1, 0
            if int(head[1]) != size:
                raise UserError(f"{path}: line {place}: {text}, not \\{size}-grams:")
        elif text == "\\end\\" and size == len(promised) > 0:
            ended = True
        elif text and size > 0 and not ended:
            parts = text.split()
            if len(parts) not in (size + 1, size + 2) or not all(
                re.fullmatch(number, p) for p in (parts[0], *parts[size + 1 :])
            ):
                raise UserError(f"{path}: line {place}: not an n-gram of {size} units")
            count += 1
            if size == 1:
                units.append(parts[1])
        elif text and not (size < 0 and not ended):
            raise UserError(f"{path}: line {place}: not of an ARPA file")
        yield line
    if not ended:
        raise UserError(f"{path}: not an ARPA file, or a cut one: it has no \\end\\")


def unit_of(units: Iterable[str]) -> str:
    """Whether single units of a model are characters or words."""
    plain = set(units) - SPECIAL
    return "character" if all(len(u) == 1 or u in SPACES for u in plain) else "word"


def read(index: Path | None) -> tuple[LanguageModel | None, dict | None]:
    """The language model of an index, and what a record tells of it; None where there is none."""
    if index is None:
        return None, None
    found = read_sealed(index)
    path = index.with_name(found["file"])
    require_unaltered(path, found["sha256"], index)
    return LanguageModel(path, found["unit"]), {key: found[key] for key in ("sha256", "unit")}
