"""Make a decoder's language model: an n-gram as ARPA, of texts or of an ARPA that is at hand.

Of texts (a sentence a line) it is built with interpolated Witten-Bell smoothing, of characters
(a space is written |) or of words. An ARPA, plain or gzipped, is checked and taken as it is: it is
one of characters where each of its units is a single character or the name of the space.

The model belongs to the texts that it was made of: their hashes stand in the index, and their
different texts lie beside it, so that what it has seen and has not is scored apart.
"""

from __future__ import annotations

import collections
import gzip
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from deepspeech2 import cli, files
from deepspeech2.cli import Input, Output, UserError, log
from deepspeech2.files import read_sealed, read_text, replacing, require_unaltered, write_json
from deepspeech2.scoring import transcripts
from deepspeech2.scoring.decoders import LanguageModel

UNITS = ("character", "word")
SPACE = "|"
SPACES = (SPACE, "<space>", "\u2581")  # names of the space in models of characters
BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
SPECIAL = {BEGIN, END, UNKNOWN, "<UNK>"}
MAX_BYTES = 1 << 34  # of an unpacked ARPA
MAX_LINE = 10_000  # characters
Grams = dict[tuple[str, ...], float]  # log10 probabilities, or weights of backing off


def units_of(text: str, unit: str) -> list[str]:
    """A text's characters or words."""
    return text.split() if unit == "word" else list(text.replace(" ", SPACE))


def build(sentences: Sequence[Sequence[str]], order: int) -> tuple[list[Grams], Grams]:
    """n-grams of 1 to `order` units with Witten-Bell smoothing, and the weights of their contexts.

    The probability of a unit after a context that was met c times with t different units next is
    (its count there + t times its probability after the context without its first unit) /
    (c + t). Below single units lies the same share for all units and the unknown.
    """
    counts: list[collections.Counter] = [collections.Counter() for _ in range(order)]
    for sentence in sentences:
        line = [BEGIN, *sentence, END]
        for end in range(1, len(line)):
            for size in range(1, min(order, end + 1) + 1):
                counts[size - 1][tuple(line[end + 1 - size : end + 1])] += 1
    vocabulary = sorted({gram[0] for gram in counts[0]} | {UNKNOWN})
    total, kinds = counts[0].total(), len(counts[0])
    base = kinds / (total + kinds) / len(vocabulary)
    probabilities: list[Grams] = [
        {(unit,): (counts[0][(unit,)] / (total + kinds)) + base for unit in vocabulary}
    ]
    weights: Grams = {}
    for size in range(2, order + 1):
        met: collections.Counter = collections.Counter()
        nexts: collections.Counter = collections.Counter()
        for gram, count in counts[size - 1].items():
            met[gram[:-1]] += count
            nexts[gram[:-1]] += 1
        below, found = probabilities[-1], {}
        for gram, count in counts[size - 1].items():
            context = gram[:-1]
            share = nexts[context] * below[gram[1:]]
            found[gram] = (count + share) / (met[context] + nexts[context])
        weights |= {c: math.log10(nexts[c] / (met[c] + nexts[c])) for c in met}
        probabilities.append(found)
    logarithms = [{g: math.log10(p) for g, p in found.items()} for found in probabilities]
    logarithms[0][(BEGIN,)] = -99.0  # begins, and is never met
    return logarithms, weights


def to_arpa(grams: Sequence[Grams], weights: Grams) -> Iterator[str]:
    """The lines of an ARPA file."""
    yield "\\data\\\n"
    yield from (f"ngram {size}={len(found)}\n" for size, found in enumerate(grams, 1))
    for size, found in enumerate(grams, 1):
        yield f"\n\\{size}-grams:\n"
        for gram, value in sorted(found.items()):
            weight = f"\t{weights[gram]:.5f}" if gram in weights else ""
            yield f"{value:.5f}\t{' '.join(gram)}{weight}\n"
    yield "\n\\end\\\n"


def read_arpa(path: Path) -> Iterator[str]:
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


def check_arpa(lines: Iterable[str], path: Path, units: list[str]) -> Iterator[str]:
    """The lines of an ARPA file as they are, its single units put into `units`.

    Raises `UserError` where they are none, or not as many as its head says.
    """
    promised: dict[int, int] = {}
    size, count, ended = -1, 0, False
    number = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|-inf"
    for place, line in enumerate(lines, 1):
        text = line.strip()
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


def main(
    texts: list[Input],
    arpa: Input | None,
    unit: Literal[UNITS],
    order: int,
    model: Output,
    index: Output,
    known: Output,
) -> None:
    """Command line.

    texts: files of texts to build it of, a sentence a line
    arpa: a model that is at hand instead (ARPA, plain or gzipped)
    unit: what to build it of
    order: units in its longest n-grams, of texts
    model: ARPA file to write
    index: its index to write (JSON)
    known: its different texts to write, a text a line; empty with an ARPA
    """
    if bool(texts) == bool(arpa):
        raise UserError("--texts, --arpa: give either")
    units: list[str] = []
    lines: list[str] = []
    if arpa:
        made = check_arpa(read_arpa(arpa), arpa, units)
        sources = [arpa]
    else:
        for path in texts:
            lines += filter(None, (" ".join(t.split()) for t in read_text(path).split("\n")))
        if not lines:
            raise UserError(f"{texts[0]}: no texts; give a file with a sentence a line")
        split = [units_of(line, unit) for line in lines]
        for name in sorted(({SPACE} if unit == "character" else SPECIAL) & set("".join(lines))):
            raise UserError(f"{texts[0]}: {name!r} in a text is what models write for a space")
        grams, weights = build(split, order)
        units += (gram[0] for gram in grams[0])
        made, sources = to_arpa(grams, weights), texts
    with replacing(model) as path, open(path, "w", encoding="utf-8") as file:
        file.writelines(made)
    with replacing(known) as path:
        different = sorted({transcripts.normal(line) for line in lines})
        path.write_text("".join(f"{line}\n" for line in different) or "\n", encoding="utf-8")
    write_json(
        index,
        {
            "file": model.name,
            "sha256": files.sha256(model),
            "unit": unit_of(units),
            "units": len(units),
            "sources": {path.name: files.sha256(path) for path in sources},
            "texts": len(lines),
            "texts_sha256": files.sha256(known) if lines else None,
        },
    )
    log.info("%d units, %d texts", len(units), len(lines))


if __name__ == "__main__":
    cli.run(main)
