"""What went wrong, listed: errors, parts, confusions, agreement, engines compared.

Rows whose transcripts are the same are listed once: an error stands there with all the rows that
made it.
"""

from __future__ import annotations

from collections.abc import Sequence

from deepspeech2.cli import UserError
from deepspeech2.files import read_sealed
from deepspeech2.report.rows import Row, device_name, groups, node_kind, of_one_kind
from deepspeech2.scoring.alignment import words
from deepspeech2.scoring.classes import text_class
from deepspeech2.scoring.rates import improvement


def errors(rows: Sequence[Row]) -> list[dict]:
    """Misrecognised utterances, most word errors first, each text once, with its rows.

    Each step of `words` has the confidence of its hypothesis word, or None.
    """
    found: dict[tuple, dict] = {}
    for group in groups(rows):
        first = group[0]
        features = read_sealed(first.features)
        known = {u["id"]: u for u in features["utterances"]}
        alignments = first.alignments()
        for name, texts in first.transcripts().items():
            if words(texts["reference"]) == words(texts["hypothesis"]):
                continue
            if name not in known or name not in alignments:
                raise UserError(f"{first.folder}: utterance {name!r} is not in these features")
            utterance = known[name]
            key = (first.dataset, first.model, name, texts["hypothesis"])
            entry = {
                "dataset": first.dataset,
                "model": first.model,
                "utterance": name,
                "speaker": utterance.get("speaker") or "",
                "text": text_class(texts["reference"]),
                "seconds": utterance["seconds"],
                **{side: texts[side] for side in ("reference", "hypothesis")},
                **{key: alignments[name][key] for key in ("errors", "reference_words")},
                "words": sure(alignments[name]["words"], texts.get("words", ())),
                "rows": [],
            }
            found.setdefault(key, entry)["rows"] += group
    return sorted(found.values(), key=lambda e: (-e["errors"], e["dataset"], e["utterance"]))


def sure(steps: Sequence[Sequence[str]], spans: Sequence[Sequence]) -> list[tuple]:
    """Steps of an alignment, each with the confidence of its hypothesis word or None."""
    confidences = (span[3] for span in spans)
    return [(*step, next(confidences, None) if step[2] else None) for step in steps]


def parts(rows: Sequence[Row]) -> list[dict]:
    """Accuracy of each part of each row."""
    return [
        {**row.key, "kind": kind, **flat(part)}
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
        {**row.key, "kind": kind, "reference": old, "hypothesis": new, "count": n}
        for row in filter(Row.is_scored, rows)
        for kind, found in row.record["accuracy"]["confusions"].items()
        for old, new, n in found
    ]


def agreement(rows: Sequence[Row]) -> list[dict]:
    """Agreement of each row with the eager float32 reference."""
    keys = "identical_transcripts utterances largest_posterior_difference "
    keys += "largest_posterior_difference_in other_lengths"
    return [
        {**row.key, **{key: row.record["agreement"][key] for key in keys.split()}} for row in rows
    ]


def batch_sizes(rows: Sequence[Row]) -> list[dict]:
    """Each utterance whose transcript is not the same at all batch sizes of an engine: its texts,
    with the batch sizes that gave them.
    """
    sets: dict[tuple, list[Row]] = {}
    for row in rows:
        key = (row.dataset, row.model, row.engine, row.decoder)
        sets.setdefault(key, []).append(row)
    found = []
    for key, group in sets.items():
        if len({row.record["hashes"]["transcripts"] for row in group}) == 1:
            continue
        texts = {row.batch_size: row.transcripts() for row in group}
        for name in next(iter(texts.values())):
            by_text: dict[str, list[int]] = {}
            for size, transcripts in sorted(texts.items()):
                by_text.setdefault(transcripts[name]["hypothesis"], []).append(size)
            if len(by_text) > 1:
                found += [
                    {
                        **dict(zip(("dataset", "model", "engine", "decoder"), key)),
                        "utterance": name,
                        "batch_sizes": ", ".join(map(str, sizes)),
                        "hypothesis": text,
                    }
                    for text, sizes in by_text.items()
                ]
    return found


def engines(rows: Sequence[Row]) -> list[dict]:
    """Paired bootstrap test of each engine against the first, at equal batch size and decoder."""
    return _against(rows, "engine")


def decoders(rows: Sequence[Row]) -> list[dict]:
    """Paired bootstrap test of each decoder against the first, on the same posteriors."""
    return _against(rows, "decoder")


def _against(rows: Sequence[Row], what: str) -> list[dict]:
    found = []
    first: dict[tuple, Row] = {}
    for row in rows:
        base = first.setdefault(tuple(v for k, v in row.key.items() if k != what), row)
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
        both = base.record, row.record
        comparable = of_one_kind(map(node_kind, both), map(device_name, both))
        found.append(
            {
                **row.key,
                "against": base.key[what],
                "wer_difference": rates[1] - rates[0],
                "p_better": better,
                "p_worse": worse,
                "differing_transcripts": sum(
                    before[name]["hypothesis"] != after[name]["hypothesis"] for name in before
                ),
                "speed_ratio": speeds[1] / speeds[0] if comparable else None,
            }
        )
    return found
