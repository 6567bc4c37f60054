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

import pandas as pd

from deepspeech2 import difference, stage
from deepspeech2.difference import Limits, Run, plain, read_run
from deepspeech2.files import replacing, write_json
from deepspeech2.stage import UserError, log
from deepspeech2.table import as_text, escape_markdown

COLUMNS = (
    "dataset model engine batch_size verdict wer_baseline wer wer_difference p_better p_worse "
    "cer_baseline cer cer_difference differing_transcripts utterances_per_s_baseline "
    "utterances_per_s speed_ratio speed_ratio_low speed_ratio_high accuracy_verdict speed_verdict "
    "changed reasons"
).split()
# Columns of the Markdown table, and what they are called there.
SHOWN = {
    "dataset": "dataset",
    "model": "model",
    "engine": "engine",
    "batch_size": "batch size",
    "verdict": "verdict",
    "wer_baseline": "baseline WER %",
    "wer": "WER %",
    "wer_difference": "WER points",
    "p_worse": "p worse",
    "cer_baseline": "baseline CER %",
    "cer": "CER %",
    "differing_transcripts": "other transcripts",
    "utterances_per_s_baseline": "baseline utterances/s",
    "utterances_per_s": "utterances/s",
    "speed_ratio": "ratio",
    "interval": "ratio's interval",
    "changed": "changed",
    "reasons": "reasons",
}
DECIMALS = {
    **{name: 3 for name in COLUMNS if re.match("wer|cer|p_|utterances|speed_ratio", name)},
    "differing_transcripts": 0,
}


def missing(row: str, reason: str = "") -> dict:
    """A row of the comparison in which nothing is compared."""
    dataset, model, engine, batch = row.split("/")
    names = {"dataset": dataset, "model": model, "engine": engine, "batch_size": int(batch[2:])}
    about = {"verdict": "MISSING", "changed": [], "reasons": [reason]}
    return {**dict.fromkeys(COLUMNS), **names, **about}


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
    """Further batch sizes that the baseline has of the datasets, models and engines of `rows`."""
    found = []
    for folder in dict.fromkeys(row.rpartition("/")[0] for row in rows):
        names = [path.parent.name for path in (baseline / folder).glob("bs*/record.json")]
        sizes = sorted(int(name[2:]) for name in names if re.fullmatch("bs[1-9][0-9]*", name))
        found += [f"{folder}/bs{size}" for size in sizes]
    return [row for row in found if row not in rows]


def compare(baseline: Path, results: Path, rows: Sequence[str], limits: Limits) -> list[dict]:
    """All rows of the comparison. Raises `UserError` if not one of `rows` can be compared."""
    if not baseline.is_dir():
        raise UserError(f"{baseline}: no such folder; give the results of another run")
    if baseline.resolve() == results.resolve():
        raise UserError(f"{baseline}: is the folder of these results; give that of another run")
    if next(baseline.glob("*/*/*/bs*/record.json"), None) is None:
        raise UserError(
            f"{baseline}: no folder of results; give one that holds "
            "DATASET/MODEL/ENGINE/bs<batch size>/record.json"
        )
    found = []
    for row in rows:
        after = read_run(results, row)
        if (baseline / row / "record.json").exists():
            found.append(compare_row(row, read_run(baseline, row), after, limits))
        else:
            found.append(missing(row, "not in the baseline"))
    if all(row["verdict"] in ("MISSING", "INCOMPARABLE") for row in found):
        why = "; ".join(f"{row}: {', '.join(r['reasons'])}" for row, r in zip(rows, found))
        raise UserError(
            f"{baseline}: holds other results, give a run of the same selection and data ({why})"
        )
    return found + [missing(row, "only in the baseline") for row in only_in(baseline, rows)]


def summary(rows: Iterable[dict]) -> tuple[str, list[str]]:
    """The verdict over all rows, and a line for each row that does not pass."""
    reasons = [
        "{dataset}/{model}/{engine}/bs{batch_size}: {verdict}: ".format(**row)
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


def markdown(frame: pd.DataFrame, title: str, lines: Iterable[str]) -> str:
    """The comparison as Markdown."""
    text = as_text(frame, DECIMALS)
    ends = text["speed_ratio_low"] + " to " + text["speed_ratio_high"]
    text["interval"] = ends.where(text["speed_ratio_low"] != "", "")
    text = text[list(SHOWN)].rename(columns=SHOWN).map(escape_markdown)
    table = text.to_markdown(index=False, disable_numparse=True)
    listed = "\n".join(f"- {escape_markdown(line)}" for line in lines)
    return f"# {escape_markdown(title)}\n\n{table}\n\n{listed}\n"


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--baseline", metavar="DIR", help="folder of the other run's results")
    parser.add_argument("--results", metavar="DIR", required=True, help="folder of our results")
    parser.add_argument("--rows", nargs="+", required=True, metavar="ROW")
    for name, value in Limits()._asdict().items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=value)
    parser.add_argument("--tsv", required=True, help="table to write")
    parser.add_argument("--md", required=True, help="table to write")
    parser.add_argument("--json", required=True, help="table and verdict to write")
    args = stage.parse(parser, argv)

    if args.baseline is None:
        raise UserError(
            "nothing to compare with; add --config baseline=FOLDER, the results of another run"
        )
    limits = Limits(**{name: getattr(args, name) for name in Limits._fields})
    if not (0 < limits.confidence < 1 and 0 <= limits.max_slowdown < 1):
        raise UserError("--confidence and --max-slowdown: not a share between 0 and 1")
    if not 0 <= limits.max_wer_increase <= 1e6:
        raise UserError("--max-wer-increase: no number of points, 0 or more")
    rows = compare(Path(args.baseline), Path(args.results), args.rows, limits)
    verdict, reasons = summary(rows)
    found = {"verdict": verdict, "reasons": reasons, "baseline": plain(args.baseline)}
    write_json(args.json, {**found, "limits": limits._asdict(), "rows": rows})
    frame = pd.DataFrame(rows)[COLUMNS]
    for name in ("changed", "reasons"):
        frame[name] = frame[name].map("; ".join)
    title = f"Comparison with {found['baseline']}: {verdict}"
    outputs = {
        args.tsv: as_text(frame, DECIMALS).to_csv(sep="\t", index=False, lineterminator="\n"),
        args.md: markdown(frame, title, notes(limits)),
    }
    for path, text in outputs.items():
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    log.info("%s: %d of %d rows pass", verdict, len(rows) - len(reasons), len(rows))


if __name__ == "__main__":
    stage.run(main)
