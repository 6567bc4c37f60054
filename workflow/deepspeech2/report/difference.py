"""How two runs of the same row differ in accuracy and speed, and whether that is for the worse.

A run is what one folder of results has of a row: its record and its transcripts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from scipy import stats

from deepspeech2.cli import UserError, printable
from deepspeech2.files import require_unaltered
from deepspeech2.report.limits import Limits
from deepspeech2.report.rows import is_scored, read_record
from deepspeech2.scoring import transcripts as transcripts_file
from deepspeech2.scoring.alignment import TOKENS, count_errors, words
from deepspeech2.scoring.rates import improvement

MAX_LOG_WIDTH = 600.0  # of half an interval: exp of more may overflow
ADVICE = "compare whole folders of results, as this version writes them"


def _number(kinds: tuple, low: float, high: float):
    return lambda value: type(value) in kinds and low <= value <= high  # neither bool nor NaN


def _is(kind: type):
    return lambda value: isinstance(value, kind)


# What is read of a record, and what it has to be: the baseline may be of another version.
FIELDS = {
    "offline.verdict": ("VALID", "QUICK", "INVALID", "FAKE").__contains__,
    "offline.utterances_per_s": _number((int, float), 1e-9, 1e12),
    "offline.spread": _number((int, float), 0, 1e6),
    "offline.batches": _number((int,), 1, 1e15),
    "environment.cpu": _is(str),
    "environment.threads": _number((int,), 1, 1e9),
    "environment.versions": _is(dict),
    "configuration.engine": _is(dict),
    "configuration.decoder": _is(dict),
    "configuration.engine.device": _is(str),
    "hashes.transcripts": _is(str),
}
# Fields that must be equal for speeds to be compared, and others that may tell why figures differ.
SAME = {
    "environment.cpu": "CPU",
    "environment.threads": "threads",
    "configuration.engine.device": "device",
}
CHANGED = {
    "hashes.checkpoint": "checkpoint",
    "hashes.dataset": "dataset",
    "hashes.timing_code": "timing code",
    "hashes.accuracy_code": "accuracy code",
    "configuration.engine": "engine settings",
    "configuration.decoder": "decoder settings",
    "environment.versions": "versions",
}
FIELDS.update({name: _is(str) for name in CHANGED if name.startswith("hashes.")})


class Run(NamedTuple):
    """A row of one folder of results: its record's FIELDS, and its transcripts by id.

    `is_scored` says whether its accuracy means anything: not with random weights.
    """

    fields: dict
    transcripts: dict[str, dict]
    is_scored: bool = True


def read_run(path: Path) -> Run:
    """A row of a folder of results, by its record. Raises `UserError` where it was altered."""
    transcripts, found = path.parent / "transcripts.jsonl", read_record(path)
    fields = {}
    for name, is_right in FIELDS.items():
        value = found
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if not is_right(value):
            raise UserError(
                f"{path}: {name} is missing or wrong ({printable(str(value))[:50]}); {ADVICE}"
            )
        fields[name] = value
    try:
        require_unaltered(transcripts, fields["hashes.transcripts"], path)
    except UserError:  # its remedy is for results of this checkout; the baseline may be anybody's
        raise UserError(
            f"{transcripts}: missing, or altered after {path} was made; {ADVICE}"
        ) from None
    return Run(fields, transcripts_file.read(transcripts), is_scored(found))


def other_utterances(before: Run, after: Run) -> str | None:
    """Why the accuracy of two runs cannot be compared; None if it can."""
    old, new = ({n: t["reference"] for n, t in run.transcripts.items()} for run in (before, after))
    common = sum(old.get(name) == text for name, text in new.items())
    if old.keys() != new.keys():
        return f"other utterances: {len(old)} against {len(new)}, {common} in common"
    if old != new:
        return f"other references: {len(new) - common} of {len(new)} differ"
    return None if any(map(words, new.values())) else "the references hold no words"


def accuracy(before: Run, after: Run, limits: Limits) -> dict:
    """Columns about accuracy: percent, points, shares of draws.

    Both runs are scored here, by the same code, whatever scored the baseline when it was made.
    """
    names = sorted(after.transcripts)
    references = [after.transcripts[name]["reference"] for name in names]
    old, new = ([r.transcripts[name]["hypothesis"] for name in names] for r in (before, after))
    row: dict = {"differing_transcripts": sum(a != b for a, b in zip(old, new))}
    if not (before.is_scored and after.is_scored):
        return {**row, "accuracy_verdict": "PASS", "reasons": ["random weights: no accuracy"]}
    for measure, tokens in TOKENS.items():
        rates = [
            count_errors((tokens(a), tokens(b)) for a, b in zip(references, texts)).rate
            for texts in (old, new)
        ]
        row.update(zip((f"{measure}_baseline", measure), rates))
        row[f"{measure}_difference"] = rates[1] - rates[0]
    row["p_better"], row["p_worse"] = improvement(
        *([words(text) for text in texts] for texts in (references, old, new))
    )
    rise = row["wer_difference"]
    failed = rise > limits.max_wer_increase and row["p_worse"] >= limits.confidence
    row["accuracy_verdict"] = "FAIL" if failed else "PASS"
    row["reasons"] = [f"WER higher by {rise:.3f} points"] if failed else []
    return row


def interval(
    ratio: float, spreads: Sequence[float], batches: Sequence[int], confidence: float
) -> tuple[float, float] | None:
    """Interval of a ratio of two speeds, from each run's spread and number of batches.

    The relative standard error of a run is spread / sqrt(batches). Those of both runs add up in
    quadrature to that of the ratio's logarithm, which has Student's distribution with Welch and
    Satterthwaite's degrees of freedom. None where a run has one batch: its spread is not known.
    """
    if min(batches) < 2:
        return None
    variances = [spread * spread / n for spread, n in zip(spreads, batches)]
    total = sum(variances)
    if not total:
        return ratio, ratio
    freedom = 1 / sum((v / total) ** 2 / (n - 1) for v, n in zip(variances, batches))
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(total)
    half = min(half, MAX_LOG_WIDTH)
    return ratio * math.exp(-half), ratio * math.exp(half)


def speed(before: Run, after: Run, limits: Limits) -> dict:
    """Columns about speed: utterances per second of the offline runs, and their ratio."""
    runs = {"baseline": before.fields, "this run": after.fields}
    rates, spreads, batches = (
        [fields[f"offline.{name}"] for fields in runs.values()]
        for name in ("utterances_per_s", "spread", "batches")
    )
    row: dict = {"utterances_per_s_baseline": rates[0], "utterances_per_s": rates[1]}
    row["speed_ratio"] = rates[1] / rates[0]
    found = interval(row["speed_ratio"], spreads, batches, limits.confidence)
    row["speed_ratio_low"], row["speed_ratio_high"] = found or (None, None)

    verdicts = {who: fields["offline.verdict"] for who, fields in runs.items()}
    unclear = [f"{who} is {v}" for who, v in verdicts.items() if v in ("INVALID", "FAKE")]
    for name, what in SAME.items():
        old, new = before.fields[name], after.fields[name]
        if old != new:
            unclear.append(f"other {what}: {printable(str(old))} against {printable(str(new))}")
    if found is None:
        unclear.append("a single batch has no spread, so the ratio has no interval")
    slower = found is not None and found[1] < 1 - limits.max_slowdown
    row["speed_verdict"] = "UNCLEAR" if unclear else "FAIL" if slower else "PASS"
    row["reasons"] = unclear or ([f"slower by at least {1 - found[1]:.1%}"] if slower else [])
    row["reasons"] += [f"{who} is QUICK" for who, v in verdicts.items() if v == "QUICK"]
    return row


def changed(before: Run, after: Run) -> list[str]:
    """What of checkpoint, data, code, settings and versions differs, by name."""
    names = []
    for field, name in CHANGED.items():
        old, new = before.fields[field], after.fields[field]
        if old != new and isinstance(old, dict):
            keys = sorted(key for key in {**old, **new} if old.get(key) != new.get(key))
            name += f" ({printable(', '.join(keys))})"
        names += [name] if old != new else []
    return names
