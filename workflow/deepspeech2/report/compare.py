"""Compare two folders of results row by row, and judge whether ours are worse than the baseline's.

Accuracy fails where WER rose by more than --max-wer-increase points and a paired bootstrap test
over the utterances says so in a share of --confidence or more of its draws. Speed fails where even
the upper end of the interval of the ratio, our utterances/s to the baseline's, lies below 1 less
--max-slowdown. The interval holds what varied between the batches within a run, not what drifts
from one run to another (heat, neighbours, clocks): --max-slowdown leaves room for that.

A row is FAIL, or MISSING (one of the folders lacks it), INCOMPARABLE (other utterances), UNCLEAR
(its speeds cannot be compared), or PASS: nothing worse was shown, and a wide interval shows little.
The whole is PASS only if all rows are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, UserError, log, printable
from deepspeech2.files import replacing, write_json
from deepspeech2.report import difference
from deepspeech2.report.columns import (
    Column,
    as_text,
    escape_markdown,
    for_readers,
    frame,
    to_markdown,
    to_tsv,
)
from deepspeech2.report.difference import Run, read_run
from deepspeech2.report.limits import Limits

NUMBER = {"decimals": 3}
COLUMNS = (
    Column("dataset", label="dataset"),
    Column("model", label="model"),
    Column("engine", label="engine"),
    Column("batch_size", label="batch size"),
    Column("decoder", label="decoder"),
    Column("verdict", label="verdict"),
    Column("wer_baseline", label="baseline WER %", **NUMBER),
    Column("wer", label="WER %", **NUMBER),
    Column("wer_difference", label="WER points", **NUMBER),
    Column("p_better", **NUMBER),
    Column("p_worse", label="p worse", **NUMBER),
    Column("cer_baseline", label="baseline CER %", **NUMBER),
    Column("cer", label="CER %", **NUMBER),
    Column("cer_difference", **NUMBER),
    Column("differing_transcripts", decimals=0, label="other transcripts"),
    Column("utterances_per_s_baseline", label="baseline utterances/s", **NUMBER),
    Column("utterances_per_s", label="utterances/s", **NUMBER),
    Column("speed_ratio", label="ratio", **NUMBER),
    Column("speed_ratio_low", **NUMBER),
    Column("speed_ratio_high", **NUMBER),
    Column("interval", label="ratio's interval", joins="{speed_ratio_low} to {speed_ratio_high}"),
    Column("accuracy_verdict"),
    Column("speed_verdict"),
    Column("changed", label="changed"),
    Column("reasons", label="reasons"),
)


def missing(row: str, reason: str = "") -> dict:
    """A row of the comparison in which nothing is compared."""
    names: dict = dict(zip(("dataset", "model", "engine", "batch_size", "decoder"), row.split("/")))
    names["batch_size"] = int(names["batch_size"][2:])
    about = {"verdict": "MISSING", "changed": [], "reasons": [reason]}
    return {**dict.fromkeys(c.name for c in COLUMNS if not c.joins), **names, **about}


def compare_row(row: str, before: Run, after: Run, limits: Limits) -> dict:
    """One row of the comparison, of a row that both folders have."""
    found = {**missing(row), "changed": difference.changed(before, after)}
    reason = difference.other_utterances(before, after)
    if reason:
        return {**found, "verdict": "INCOMPARABLE", "reasons": [reason]}
    parts = [of(before, after, limits) for of in (difference.accuracy, difference.speed)]
    for part in parts:
        found.update(part)
    found["reasons"] = [reason for part in parts for reason in part["reasons"]]
    verdicts = (found["accuracy_verdict"], found["speed_verdict"])
    found["verdict"] = next((v for v in ("FAIL", "UNCLEAR") if v in verdicts), "PASS")
    return found


def only_in(baseline: Path, rows: Sequence[str]) -> list[str]:
    """Further batch sizes that the baseline has of all else that tells `rows` apart."""
    found = []
    for folder, decoder in dict.fromkeys((r.rsplit("/", 2)[0], r.rsplit("/", 1)[1]) for r in rows):
        names = [p.parts[-3] for p in (baseline / folder).glob(f"bs*/{decoder}/record.json")]
        sizes = sorted(int(name[2:]) for name in names if re.fullmatch("bs[1-9][0-9]*", name))
        found += [f"{folder}/bs{size}/{decoder}" for size in sizes]
    return [row for row in found if row not in rows]


def compare(baseline: Path, records: Sequence[Path], limits: Limits) -> list[dict]:
    """All rows of the comparison. Raises `UserError` if not one of ours can be compared."""
    if not baseline.is_dir():
        raise UserError(f"{baseline}: no such folder; give the results of another run")
    if baseline.resolve() == records[0].absolute().parents[5].resolve():
        raise UserError(f"{baseline}: is the folder of these results; give that of another run")
    if next(baseline.glob("*/*/*/bs*/*/record.json"), None) is None:
        raise UserError(
            f"{baseline}: not a folder of results; give one that holds "
            "DATASET/MODEL/ENGINE/bs<batch size>/DECODER/record.json"
        )
    names = ["/".join(path.absolute().parent.parts[-5:]) for path in records]
    found = []
    for row, path in zip(names, records):
        after, before = read_run(path), baseline / row / "record.json"
        if before.exists():
            found.append(compare_row(row, read_run(before), after, limits))
        else:
            found.append(missing(row, "not in the baseline"))
    if all(row["verdict"] in ("MISSING", "INCOMPARABLE") for row in found):
        why = "; ".join(f"{row}: {', '.join(r['reasons'])}" for row, r in zip(names, found))
        raise UserError(
            f"{baseline}: holds other results, give a run of the same selection and data ({why})"
        )
    return found + [missing(row, "only in the baseline") for row in only_in(baseline, names)]


def summary(rows: Iterable[dict]) -> tuple[str, list[str]]:
    """The verdict over all rows, and a line for each row that does not pass."""
    reasons = [
        "{dataset}/{model}/{engine}/bs{batch_size}/{decoder}: {verdict}: ".format(**row)
        + ", ".join(row["reasons"])
        for row in rows
        if row["verdict"] != "PASS"
    ]
    return "FAIL" if reasons else "PASS", reasons


def notes(limits: Limits) -> list[str]:
    """Lines under the table: what makes a row fail, and what the figures mean."""
    sure, slower = f"{100 * limits.confidence:g} %", f"{100 * limits.max_slowdown:g} %"
    return [
        f"FAIL: WER rose by more than {limits.max_wer_increase:g} points and is higher in {sure} "
        "or more of the bootstrap's draws of utterances (p worse), or the ratio's whole interval "
        f"lies below {1 - limits.max_slowdown:g}. PASS: that was not shown.",
        f"The ratio is that of our utterances/s to the baseline's. Its {sure} interval holds what "
        "varied between the batches within a run, not what drifts from one run to another, for "
        f"which {slower} are allowed. A wide interval shows little.",
        "MISSING: one of the two lacks the row. INCOMPARABLE: the utterances are others. UNCLEAR: "
        "the speeds cannot be compared. The whole is PASS only if all rows are.",
        "What changed is named to help to explain a difference; it decides nothing.",
    ]


def main(
    records: list[Input],
    baseline: Path | None,
    confidence: float,
    max_wer_increase: float,
    max_slowdown: float,
    tsv: Output,
    md: Output,
    json: Output,
) -> None:
    """Command line.

    records: our rows' records (JSON)
    baseline: folder of the other run's results
    confidence: of the speed's interval, and the share of draws in which WER is higher
    max_wer_increase: points that WER may rise by
    max_slowdown: share of the baseline's speed that may be lost
    tsv: table to write, for programs
    md: table to write, for readers
    json: table and verdict to write
    """
    if baseline is None:
        raise UserError(
            "nothing to compare with; add --config baseline=FOLDER, the results of another run"
        )
    limits = Limits(confidence, max_wer_increase, max_slowdown)
    if not (0 < limits.confidence < 1 and 0 <= limits.max_slowdown < 1):
        raise UserError("--confidence and --max-slowdown: not a share between 0 and 1")
    if not 0 <= limits.max_wer_increase <= 1e6:
        raise UserError("--max-wer-increase: must be a number of points, 0 or more")
    rows = compare(baseline, records, limits)
    verdict, reasons = summary(rows)
    found = {"verdict": verdict, "reasons": reasons, "baseline": printable(str(baseline))}
    write_json(json, {**found, "limits": limits._asdict(), "rows": rows})
    table = frame(COLUMNS, rows)
    shown = for_readers(COLUMNS, as_text(COLUMNS, table, readers=True))
    title = escape_markdown(f"Comparison with {found['baseline']}: {verdict}")
    outputs = {
        tsv: to_tsv(COLUMNS, table),
        md: f"# {title}\n\n{to_markdown(shown, notes(limits))}",
    }
    for path, text in outputs.items():
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    log.info("%s: %d of %d rows pass", verdict, len(rows) - len(reasons), len(rows))


if __name__ == "__main__":
    cli.run(main)
