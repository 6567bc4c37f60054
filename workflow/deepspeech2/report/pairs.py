"""Rows side by side, utterance by utterance: what the page needs to set any two beside each other.

Rows whose transcripts are the same stand together. The baseline's rows are among them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from deepspeech2.report.difference import read_run
from deepspeech2.report.rows import Row, groups, where
from deepspeech2.scoring.alignment import align, words

MOST_BYTES = 2 << 20  # of all of it


def side_by_side(rows: Sequence[Row], baseline: Iterable[Path] = ()) -> list[dict]:
    """For each dataset and model with different transcripts: its rows' names, and its utterances.

    An utterance has its id, reference, the different hypotheses as steps of their alignments, and
    for each of the rows which of these it has. Those that all have alike are only counted; those
    beyond `MOST_BYTES` are counted as `left_out`, the ones with fewest errors.
    """
    sets: dict[str, dict] = {}

    def take(name: str, label: str, transcripts: dict[str, dict]) -> None:
        found = sets.setdefault(name, {"name": name, "rows": [], "texts": []})
        references = {n: t["reference"] for n, t in transcripts.items()}
        if found["texts"] and references != {
            n: t["reference"] for n, t in found["texts"][0].items()
        }:
            return  # of other utterances, which the comparison with the baseline says
        found["rows"].append(label)
        found["texts"].append(transcripts)

    for group in groups(rows):
        take(f"{group[0].dataset} {group[0].model}", where(group), group[0].transcripts())
    scored = {f"{row.dataset} {row.model}" for row in rows if row.is_scored()}
    for path in baseline:
        dataset, model, engine, batch, decoder = Path(path).parts[-6:-1]
        if f"{dataset} {model}" in scored:
            label = f"baseline: {engine} {decoder} at {batch.removeprefix('bs')}"
            take(f"{dataset} {model}", label, read_run(Path(path)).transcripts)
    left = MOST_BYTES
    found = []
    for one in sets.values():
        if len(one["rows"]) > 1:
            found.append(_told(one, left))
            left -= len(json.dumps(found[-1]))
    return found


def _told(one: dict, most: int) -> dict:
    texts, told, alike = one["texts"], [], 0
    for name, entry in texts[0].items():
        said = [transcripts[name]["hypothesis"] for transcripts in texts]
        different = list(dict.fromkeys(said))
        if len(different) == 1:
            alike += 1
            continue
        steps = [align(words(entry["reference"]), words(text)) for text in different]
        errors = [sum(step[0] != "equal" for step in way) for way in steps]
        told.append(
            {
                "id": name,
                "steps": steps,
                "errors": errors,
                "of": [different.index(text) for text in said],
            }
        )
    told.sort(key=lambda utterance: -max(utterance["errors"]))
    kept, size = [], 0
    for utterance in told:
        size += len(json.dumps(utterance))
        if size > most:
            break
        kept.append(utterance)
    return {
        "name": one["name"],
        "rows": one["rows"],
        "alike": alike,
        "left_out": len(told) - len(kept),
        "utterances": kept,
    }


def as_script(found: list[dict]) -> str:
    """The same as JSON that a page may hold: nothing in it ends a script."""
    text = json.dumps(found, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("&", "\\u0026")
