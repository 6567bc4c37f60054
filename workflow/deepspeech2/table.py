"""Gather the rows of the selection into one table, as TSV, Markdown and HTML.

A row is `dataset/model/engine/bs<batch size>`, the folder under the results that holds its
`record.json`. Published figures stand beside ours where dataset and batch size
match, whatever the engine.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from deepspeech2 import record, stage
from deepspeech2.backends import BACKENDS
from deepspeech2.files import replacing
from deepspeech2.stage import UserError, log

COLUMNS = (
    "dataset model engine batch_size utterances wer cer substitutions deletions insertions "
    "identical_transcripts utterances_per_s rtfx latency_p50_ms latency_p90_ms latency_p99_ms "
    "verdict published_utterances_per_s published_acl_utterances_per_s published_wer published_cer "
    "wer_low wer_high cer_low cer_high reasons end_to_end_utterances_per_s latency_mean_ms "
    "latency_std_ms latency_p95_ms spread padding_share fill_up_rows batches seconds threads "
    "other_load compile_seconds artefact_bytes peak_memory_bytes engine_settings cpu "
    "versions checkpoint parameters checkpoint_sha256 manifest dataset_sha256 "
    "stream_p50_ms stream_p90_ms stream_p95_ms stream_p99_ms stream_mean_ms stream_verdict "
    "stream_reasons stream_disturbed ser scored of empty wer_unseen unseen_utterances "
    "largest_posterior_difference padding_share_longest padding_share_batch "
    "peak_device_memory_bytes load_before governor stream_threads stream_cpu assemble_seconds "
    "upload_seconds forward_seconds download_seconds "
    "git_revision disturbed note left_to_torch"
).split()
# Columns of the Markdown and HTML tables, and what they are called there.
SHOWN = {
    "dataset": "dataset",
    "model": "model",
    "engine": "engine",
    "batch_size": "batch size",
    "verdict": "verdict",
    "utterances_per_s": "utterances/s",
    "published_utterances_per_s": "published torch_aie utterances/s",
    "published_acl_utterances_per_s": "published ACL utterances/s",
    "rtfx": "RTFx",
    "wer": "WER %",
    "interval": "WER 95 %",
    "published_wer": "published WER %",
    "cer": "CER %",
    "published_cer": "published CER %",
    "errors": "S/D/I",
    "identical": "as eager",
    "latency_p50_ms": "batch p50 ms",
    "latency_p90_ms": "batch p90 ms",
    "latency_p99_ms": "batch p99 ms",
    "stream_p50_ms": "single p50 ms",
    "stream_p90_ms": "single p90 ms",
    "stream_p99_ms": "single p99 ms",
    "note": "note",
}
# What stays empty where weights are random.
ACCURACY = (
    "wer cer substitutions deletions insertions wer_low wer_high cer_low cer_high ser wer_unseen "
    "unseen_utterances empty"
).split()
LATENCIES = [f"latency_{name}_ms" for name in ("mean", "std", "p50", "p90", "p95", "p99")]
# Underscores inside of words are none of Markdown's business.
MARKDOWN = r"[\\`*~|\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"
STREAM = [f"stream_{name}_ms" for name in ("mean", "p50", "p90", "p95", "p99")]
DECIMALS = {
    **dict.fromkeys(("wer", "cer", "wer_low", "wer_high", "cer_low", "cer_high"), 3),
    **dict.fromkeys(("published_wer", "published_cer"), 3),
    **dict.fromkeys(("utterances_per_s", "end_to_end_utterances_per_s", "rtfx"), 3),
    **dict.fromkeys(("ser", "wer_unseen"), 3),
    **dict.fromkeys((*LATENCIES, *STREAM), 2),
    **dict.fromkeys(("spread", "padding_share", "other_load", "compile_seconds", "seconds"), 3),
    **dict.fromkeys(("padding_share_longest", "padding_share_batch", "load_before"), 3),
}
SHOWN_DECIMALS = {
    **DECIMALS,
    **dict.fromkeys(("utterances_per_s", "wer_low", "wer_high"), 2),
    **dict.fromkeys(("rtfx", *LATENCIES, *STREAM), 1),
}


def as_row(found: dict, published: dict[str, dict[int, dict]]) -> dict:
    """One row of the table from its record."""
    score, timing, stream = found["accuracy"], found["offline"], found["single_stream"]
    environment, hashes = found["environment"], found["hashes"]
    unseen = next((p for p in score["parts"]["seen"] if p["name"] == "unseen"), None)
    values = {
        **{key: found[key] for key in ("dataset", "model", "engine", "batch_size")},
        **{key: found[key] for key in ("checkpoint", "parameters", "manifest")},
        "utterances": score["utterances"],
        **{key: score["coverage"][key] for key in ("scored", "of", "empty")},
        **{key: score["wer"][key] for key in ("substitutions", "deletions", "insertions")},
        "ser": score["ser"]["percent"],
        "wer_unseen": unseen and unseen["wer"]["percent"],
        "unseen_utterances": unseen and unseen["utterances"],
        **{f"latency_{name}_ms": value for name, value in timing["latency_ms"].items()},
        # Whoever waits for one utterance waits for all of it, not for the forward pass alone.
        **{f"stream_{k}_ms": v for k, v in stream["end_to_end_latency_ms"].items()},
        "stream_verdict": stream["verdict"],
        **{f"stream_{key}": "; ".join(stream[key]) for key in ("reasons", "disturbed")},
        **{f"stream_{key}": stream["environment"][key] for key in ("threads", "cpu")},
        **{f"{phase}_seconds": s for phase, s in timing["phase_seconds"].items()},
        **{f"padding_share_{k}": v for k, v in timing["padding_shares"].items()},
        **{key: environment[key] for key in ("threads", "cpu", "git_revision")},
        "checkpoint_sha256": hashes["checkpoint"],
        "dataset_sha256": hashes["dataset"],
        "engine_settings": " ".join(
            f"{k}={v}" for k, v in found["configuration"]["engine"].items()
        ),
        "left_to_torch": " ".join(timing["compile_notes"].get("left_to_torch") or []),
        "versions": " ".join(f"{k} {v}" for k, v in environment["versions"].items()),
        **{key: "; ".join(timing[key]) for key in ("reasons", "disturbed")},
    }
    for name in ("wer", "cer"):
        values[name] = score[name]["percent"]
        values[f"{name}_low"], values[f"{name}_high"] = score[name]["low"], score[name]["high"]
    if not record.is_scored(found):
        values.update(dict.fromkeys(ACCURACY), note="random weights: no accuracy")
    values.update(published.get(found["dataset"], {}).get(found["batch_size"], {}))
    for name in COLUMNS:
        if name not in values:
            values[name] = timing.get(name, found["agreement"].get(name))
    return {name: values[name] for name in COLUMNS}


def read_published(arguments: list[str]) -> tuple[dict[str, dict[int, dict]], list[str]]:
    """Published figures by dataset and batch size, from arguments like `an4=figures.tsv`.

    Also the comments of the files, which say what the figures are.
    """
    found, remarks = {}, []
    for argument in arguments:
        dataset, _, path = argument.partition("=")
        try:
            frame = pd.read_csv(
                path, sep="\t", comment="#", index_col="batch_size", na_values=["/"]
            ).astype(float)
            if not frame.index.is_unique:
                raise ValueError("a batch size stands there twice")
        except FileNotFoundError:
            raise UserError(f"{path}: no such table of published figures") from None
        except (ValueError, KeyError) as error:
            raise UserError(f"{path}: not a table with a column batch_size ({error})") from None
        found[dataset] = {
            size: {f"published_{name}": value for name, value in row.items()}
            for size, row in frame.to_dict("index").items()
        }
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        remarks.append(" ".join(line[1:].strip() for line in lines if line.startswith("#")))
    return found, remarks


def read_rows(
    results: str | Path, rows: Iterable[str], published: dict[str, dict[int, dict]]
) -> pd.DataFrame:
    """The table of some rows of a folder of results."""
    found = [as_row(record.read(results, row), published) for row in rows]
    # With types of its own pandas makes floats of whole numbers beside missing ones.
    return pd.DataFrame(found, dtype=object)


def as_text(rows: pd.DataFrame, decimals: dict[str, int] = DECIMALS) -> pd.DataFrame:
    """Every value as text, numbers with their column's decimals, what is missing empty."""

    def text(value, places):
        if pd.isna(value):
            return ""
        if places is not None:
            return f"{value:.{places}f}"
        return f"{value:g}" if isinstance(value, float) else str(value)

    columns = {
        name: [text(value, decimals.get(name)) for value in rows[name].astype(object)]
        for name in rows.columns
    }
    return pd.DataFrame(columns, index=rows.index)


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns for readers. Columns that are empty in every row are left out."""
    text = as_text(rows, SHOWN_DECIMALS)
    text["interval"] = text["wer_low"] + " to " + text["wer_high"]
    text["errors"] = text["substitutions"] + "/" + text["deletions"] + "/" + text["insertions"]
    text.loc[text["wer"] == "", ["interval", "errors"]] = ""
    text["identical"] = text["identical_transcripts"] + "/" + text["utterances"]
    if rows["threads"].nunique() > 1:
        text["verdict"] += " (" + text["threads"] + " threads)"
    text = text[list(SHOWN)].rename(columns=SHOWN)
    return text.loc[:, (text != "").any()]


def notes(rows: pd.DataFrame, remarks: Iterable[str]) -> list[str]:
    """Lines under the table: models, machine, and what the verdicts mean."""
    models = rows[["model", "checkpoint", "parameters", "checkpoint_sha256"]].drop_duplicates()
    lines = [
        f"Model {m.model}: {m.checkpoint}, {m.parameters / 1e6:.1f} million parameters, "
        f"SHA-256 {m.checkpoint_sha256[:12]}."
        for m in models.itertuples()
    ]
    for cpu, threads, versions, governor in sorted(
        {(r.cpu, r.threads, r.versions, r.governor or "") for r in rows.itertuples()}
    ):
        clock = f", frequency governor {governor}" if governor else ""
        lines.append(f"Measured on {cpu} with {threads} threads{clock}; {versions}.")
    if (rows["verdict"] == "QUICK").any():
        lines.append("QUICK: timed with reduced settings; the speed is a rough figure.")
    disturbed = (rows["verdict"] == "QUICK") & rows["disturbed"].astype(bool)
    for row in rows[(rows["verdict"] == "INVALID") | disturbed].itertuples():
        where = f"{row.dataset}/{row.model}/{row.engine} at batch size {row.batch_size}"
        lines.append(f"{row.verdict}: {where}: {row.reasons}.")
    disturbed = (rows["stream_verdict"] == "QUICK") & rows["stream_disturbed"].astype(bool)
    streams = rows[(rows["stream_verdict"] == "INVALID") | disturbed]
    for row in streams.drop_duplicates(["dataset", "model", "engine"]).itertuples():
        where = f"{row.dataset}/{row.model}/{row.engine}, one utterance at a time"
        lines.append(f"{row.stream_verdict}: {where}: {row.stream_reasons}.")
    if (rows["verdict"] == "FAKE").any():
        lines.append("FAKE: computed by a stand-in for a device; no figure of these rows is real.")
    for engine, settings in rows[["engine", "engine_settings"]].drop_duplicates().to_numpy():
        found = re.match(r"backend=(\S+) device=([a-z]+)", settings or "")
        backend, device = found.groups() if found else ("", "")
        if backend in BACKENDS and device not in BACKENDS[backend].proven:
            lines.append(
                f"Engine {engine}: whoever wrote its backend {backend} had no hardware for it "
                f"(device {device}), and has never run it there."
            )
    for row in rows[rows["left_to_torch"].astype(bool)].itertuples():
        where = f"{row.dataset}/{row.model}/{row.engine} at batch size {row.batch_size}"
        lines.append(f"Left to torch by the compiler of {where}: {row.left_to_torch}.")
    others = (rows["stream_threads"] != rows["threads"]) | (rows["stream_cpu"] != rows["cpu"])
    for row in rows[others].drop_duplicates(["dataset", "model", "engine"]).itertuples():
        lines.append(
            f"Single latency of {row.dataset}/{row.model}/{row.engine}: measured on "
            f"{row.stream_cpu} with {row.stream_threads} threads."
        )
    for dataset, part in rows[rows["note"].isna()].groupby("dataset", sort=False):
        counts = part[["model", "engine", "scored", "of", "empty"]].drop_duplicates()
        alike = len(counts[["scored", "of", "empty"]].drop_duplicates()) == 1
        for row in counts[:1].itertuples() if alike else counts.itertuples():
            where = dataset if alike else f"{dataset}/{row.model}/{row.engine}"
            lines.append(f"{where}: scored {row.scored} of {row.of} utterances, empty {row.empty}.")
    lines.append(
        "Batch latency is of the forward pass of a batch; single latency is of one utterance at a "
        "time, from its features to its posteriors. Accuracy is scored at every batch size; "
        "'as eager' counts the "
        "transcripts that equal those of the plain float32 network, one utterance at a time."
    )
    return [*lines, *filter(None, remarks)]


def markdown(rows: pd.DataFrame, remarks: Iterable[str] = ()) -> str:
    """The table as Markdown."""
    text = shown(rows)
    table = text.map(escape_markdown).to_markdown(index=False, disable_numparse=True)
    lines = [f"- {escape_markdown(line)}" for line in notes(rows, remarks)]
    return table + "\n\n" + "\n".join(lines) + "\n"


def escape_markdown(text: str) -> str:
    """`text` on one line, without anything that Markdown would take for markup."""
    text = re.sub(MARKDOWN, r"\\\g<0>", " ".join(text.split()))
    return html.escape(text, quote=False).replace("://", "&#58;//")  # or it turns into a link


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>DeepSpeech2: accuracy and speed</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: .875rem system-ui, sans-serif; margin: 1.5rem; }}
div {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .4rem; border-bottom: 1px solid #8886; text-align: right; }}
th {{ vertical-align: bottom; }}
th:nth-child(-n+3), td:nth-child(-n+3) {{ text-align: left; }}
td {{ white-space: nowrap; }}
</style>
</head>
<body>
<h1>DeepSpeech2: accuracy and speed</h1>
<div>{table}</div>
<ul>{notes}</ul>
</body>
</html>
"""


def page(rows: pd.DataFrame, remarks: Iterable[str] = ()) -> str:
    """The table as an HTML page without scripts or links."""
    table = shown(rows).to_html(index=False, border=0, escape=True)
    items = "".join(f"<li>{html.escape(line)}</li>" for line in notes(rows, remarks))
    return PAGE.format(table=table, notes=items)


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--results", required=True, help="folder of all results")
    parser.add_argument("--rows", nargs="+", required=True, metavar="ROW")
    parser.add_argument(
        "--published", nargs="*", default=[], metavar="DATASET=TSV", help="published figures"
    )
    parser.add_argument("--tsv", required=True, help="table to write")
    parser.add_argument("--md", required=True, help="table to write")
    parser.add_argument("--html", required=True, help="table to write")
    args = stage.parse(parser, argv)

    published, remarks = read_published(args.published)
    rows = read_rows(args.results, args.rows, published)
    outputs = {
        args.tsv: as_text(rows).to_csv(sep="\t", index=False, lineterminator="\n"),
        args.md: markdown(rows, remarks),
        args.html: page(rows, remarks),
    }
    for path, text in outputs.items():
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    log.info("%d rows", len(rows))


if __name__ == "__main__":
    stage.run(main)
