"""List what went wrong, as tables (TSV): errors, confusions, parts, agreement, engines compared.

Rows whose transcripts are the same are listed once: an error stands there with all the rows that
made it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from deepspeech2 import record, stage
from deepspeech2.alignment import words
from deepspeech2.files import read_json, replacing, require_unaltered
from deepspeech2.score import improvement, read_transcripts, text_class
from deepspeech2.stage import UserError, log

KEY = ["dataset", "model", "engine", "batch_size"]


class Row:
    """A row of the results: its record and, read when they are asked for, its transcripts."""

    def __init__(self, results: str | Path, row: str):
        self.name, self.folder = row, Path(results) / row
        self.record = record.read(results, row)
        self.dataset, self.model, self.engine, _ = row.split("/")
        self.batch_size: int = self.record["batch_size"]
        self.key = (self.dataset, self.model, self.engine, self.batch_size)

    def is_scored(self) -> bool:
        """Whether its accuracy means anything."""
        return record.is_scored(self.record)

    def transcripts(self) -> dict[str, dict]:
        """Transcripts by utterance id, as they were scored."""
        path = self.folder / "transcripts.jsonl"
        index = str(self.folder / "record.json")
        require_unaltered(path, self.record["hashes"]["transcripts"], index)
        return read_transcripts(path)

    def alignments(self) -> dict[str, dict]:
        """Alignments by utterance id."""
        path = self.folder / "alignments.jsonl"
        expected = self.record["accuracy"]["alignments_sha256"]
        require_unaltered(path, expected, str(self.folder / "score.json"))
        text = path.read_text(encoding="utf-8")
        return {line["id"]: line for line in map(json.loads, text.rstrip("\n").split("\n"))}


def read_rows(results: str | Path, rows: Iterable[str]) -> list[Row]:
    """Rows of a folder of results."""
    return [Row(results, row) for row in rows]


def groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of the same dataset and model that have the same transcripts, if these mean anything."""
    found: dict[tuple, list[Row]] = {}
    for row in filter(Row.is_scored, rows):
        key = (row.dataset, row.model, row.record["hashes"]["transcripts"])
        found.setdefault(key, []).append(row)
    return list(found.values())


def where(rows: Sequence[Row]) -> str:
    """Rows in short: engines with their batch sizes."""
    sizes: dict[str, list[str]] = {}
    for row in rows:
        sizes.setdefault(row.engine, []).append(str(row.batch_size))
    return "; ".join(f"{engine} at {', '.join(found)}" for engine, found in sizes.items())


def errors(results: str | Path, rows: Sequence[Row]) -> list[dict]:
    """Misrecognised utterances, most word errors first, each text once, with its rows."""
    found: dict[tuple, dict] = {}
    for group in groups(rows):
        first = group[0]
        features = read_json(Path(results) / first.dataset / first.model / "features.json")
        known = {u["id"]: (place, u) for place, u in enumerate(features["utterances"])}
        alignments = first.alignments()
        for name, texts in first.transcripts().items():
            if words(texts["reference"]) == words(texts["hypothesis"]):
                continue
            if name not in known or name not in alignments:
                raise UserError(f"{first.folder}: utterance {name!r} is not of these features")
            place, utterance = known[name]
            key = (first.dataset, first.model, name, texts["hypothesis"])
            entry = {
                "dataset": first.dataset,
                "model": first.model,
                "utterance": name,
                "place": place,
                "speaker": utterance.get("speaker") or "",
                "text": text_class(texts["reference"]),
                "seconds": utterance["seconds"],
                **texts,
                **{key: alignments[name][key] for key in ("errors", "reference_words", "words")},
                "rows": [],
            }
            found.setdefault(key, entry)["rows"] += group
    return sorted(found.values(), key=lambda e: (-e["errors"], e["dataset"], e["utterance"]))


def parts(rows: Sequence[Row]) -> list[dict]:
    """Accuracy of each part of each row."""
    return [
        {**dict(zip(KEY, row.key)), "kind": kind, **flat(part)}
        for row in filter(Row.is_scored, rows)
        for kind, found in row.record["accuracy"]["parts"].items()
        for part in found
    ]


def flat(part: dict) -> dict:
    """A part's name, size and rates as columns."""
    return {
        **{key: part[key] for key in ("name", "utterances")},
        "reference_words": part["wer"]["reference_length"],
        **{key: part["wer"][key] for key in ("substitutions", "deletions", "insertions")},
        **{
            name if key == "percent" else f"{name}_{key}": part[name][key]
            for name, keys in (("wer", ("percent", "low", "high")), ("cer", ("percent",)))
            for key in keys
        },
        "ser": part["ser"]["percent"],
    }


def confusions(rows: Sequence[Row]) -> list[dict]:
    """Confused words and characters of each row, most frequent first; "" where one is missing."""
    return [
        {**dict(zip(KEY, row.key)), "kind": kind, "reference": old, "hypothesis": new, "count": n}
        for row in filter(Row.is_scored, rows)
        for kind, found in row.record["accuracy"]["confusions"].items()
        for old, new, n in found
    ]


def agreement(rows: Sequence[Row]) -> list[dict]:
    """Agreement of each row with the eager float32 reference."""
    keys = "identical_transcripts utterances largest_posterior_difference "
    keys += "largest_posterior_difference_in other_lengths"
    return [
        {**dict(zip(KEY, row.key)), **{key: row.record["agreement"][key] for key in keys.split()}}
        for row in rows
    ]


def engines(rows: Sequence[Row]) -> list[dict]:
    """Paired bootstrap test of each engine against the first, at equal batch size."""
    found = []
    first: dict[tuple, Row] = {}
    for row in rows:
        base = first.setdefault((row.dataset, row.model, row.batch_size), row)
        if base is row or not row.is_scored():
            continue
        before, after = base.transcripts(), row.transcripts()
        if {k: t["reference"] for k, t in before.items()} != {
            k: t["reference"] for k, t in after.items()
        }:
            continue
        better, worse = improvement(
            [words(t["reference"]) for t in before.values()],
            [words(t["hypothesis"]) for t in before.values()],
            [words(after[name]["hypothesis"]) for name in before],
        )
        rates = [r.record["accuracy"]["wer"]["percent"] for r in (base, row)]
        speeds = [r.record["offline"]["utterances_per_s"] for r in (base, row)]
        found.append(
            {
                **dict(zip(KEY, row.key)),
                "against": base.engine,
                "wer_difference": rates[1] - rates[0],
                "p_better": better,
                "p_worse": worse,
                "differing_transcripts": sum(
                    before[name]["hypothesis"] != after[name]["hypothesis"] for name in before
                ),
                "speed_ratio": speeds[1] / speeds[0],
            }
        )
    return found


COLUMNS = {
    "errors": "dataset model utterance speaker text seconds errors reference_words reference "
    "hypothesis rows",
    "parts": " ".join(KEY) + " kind name utterances reference_words substitutions deletions "
    "insertions wer wer_low wer_high cer ser",
    "confusions": " ".join(KEY) + " kind reference hypothesis count",
    "agreement": " ".join(KEY) + " identical_transcripts utterances largest_posterior_difference "
    "largest_posterior_difference_in other_lengths",
    "engines": " ".join(KEY) + " against wer_difference p_better p_worse differing_transcripts "
    "speed_ratio",
}


def tables(results: str | Path, rows: Sequence[Row]) -> dict[str, pd.DataFrame]:
    """All tables by name; those without a line have their columns all the same."""
    listed = [{**e, "rows": where(e["rows"])} for e in errors(results, rows)]
    found = {
        "errors": listed,
        "parts": parts(rows),
        "confusions": confusions(rows),
        "agreement": agreement(rows),
        "engines": engines(rows),
    }
    return {name: pd.DataFrame(found[name], columns=COLUMNS[name].split()) for name in COLUMNS}


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--results", required=True, help="folder of all results")
    parser.add_argument("--rows", nargs="+", required=True, metavar="ROW")
    parser.add_argument("--tables", required=True, help="folder to write TSV files into")
    args = stage.parse(parser, argv)

    for name, frame in tables(args.results, read_rows(args.results, args.rows)).items():
        with replacing(Path(args.tables) / f"{name}.tsv") as temporary:
            text = frame.to_csv(sep="\t", index=False, lineterminator="\n", float_format="%.6g")
            temporary.write_text(text, encoding="utf-8")
        log.info("%s: %d lines", name, len(frame))


if __name__ == "__main__":
    stage.run(main)
