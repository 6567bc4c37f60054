"""Make a decoder's language model: an n-gram as ARPA, of texts or of an ARPA that is at hand.

Of texts (a sentence a line) it is built with interpolated Witten-Bell smoothing, of characters
(a space is written |) or of words. An ARPA, plain or gzipped, is checked and taken as it is: it is
one of characters where each of its units is a single character or the name of the space.

The model belongs to the texts that it was made of: their hashes stand in the index, and their
different texts lie beside it, so that what it has seen and has not is scored apart.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from typing import Literal

from deepspeech2 import cli, files
from deepspeech2.cli import Input, Output, UserError, log
from deepspeech2.files import read_text, replacing, write_json
from deepspeech2.scoring import arpa as arpa_file
from deepspeech2.scoring import transcripts
from deepspeech2.scoring.arpa import BEGIN, END, SPACE, SPECIAL, UNITS, UNKNOWN, Grams


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
        made = arpa_file.check(arpa_file.lines(arpa), arpa, units)
        sources = [arpa]
    else:
        for path in texts:
            lines += filter(None, (" ".join(t.split()) for t in read_text(path).split("\n")))
        if not lines:
            raise UserError(f"{texts[0]}: no texts; give a file with a sentence a line")
        split = [units_of(line, unit) for line in lines]
        met = {u for line in split for u in line} if unit == "word" else set("".join(lines))
        for name in sorted(met & ({SPACE} if unit == "character" else SPECIAL)):
            raise UserError(f"{texts[0]}: {name!r} in a text means something else in a model")
        grams, weights = build(split, order)
        units += (gram[0] for gram in grams[0])
        made, sources = arpa_file.write(grams, weights), texts
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
            "unit": arpa_file.unit_of(units),
            "units": len(units),
            "sources": {path.name: files.sha256(path) for path in sources},
            "texts": len(lines),
            "texts_sha256": files.sha256(known) if lines else None,
        },
    )
    log.info("%d units, %d texts", len(units), len(lines))


if __name__ == "__main__":
    cli.run(main)
