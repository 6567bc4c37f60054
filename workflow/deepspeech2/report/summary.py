"""The table of a selection's rows: its columns, its text for readers, and the notes under it."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence

import pandas as pd

from deepspeech2.engines import BACKENDS, backend_class
from deepspeech2.engines.verdicts import BOUNDED
from deepspeech2.report.columns import Column, as_text, for_readers, frame
from deepspeech2.report.published import Published
from deepspeech2.report.rows import (
    audio_notes,
    coverage,
    device_name,
    dropped,
    is_greedy,
    is_scored,
    mixed,
    node_kind,
    of_one_kind,
    skipped,
)
from deepspeech2.serving.arrivals import Rule

ZEROS = (
    "Zeros by ais_bench: one batch of zeros, with lengths of zero, computed again and again, "
    "without copies, as the published ACL figures were measured. utterances/s are of the corpus, "
    "with the copies to and from the device, and do not compare with these."
)
SERVER = (
    "Server: utterances arrive at random (a Poisson process), and as soon as the engine is free "
    "those that wait are its next batch, {max_batch} at most{wait}. This is the highest rate at "
    "which {percentile:g} % have their transcript {latency_ms:g} ms after they arrived, at the "
    "latest, as LoadGen decides that, twice over; 0 where no rate from a twentieth of what full "
    "batches reach on holds."
)
RANDOM = "random weights: no accuracy"


def _unseen(row: dict) -> dict:
    parts = row["accuracy"]["parts"]["seen"]
    return next((part for part in parts if part["name"] == "unseen"), {})


def _decoder_settings(row: dict) -> str:
    """A decoder's settings in words; nothing for the plain one."""
    found = row["configuration"]["decoder"]
    if is_greedy(row):
        return ""
    model, tuning = found["language_model"], found["tuning"]
    parts = [f"{found['kind']}, {_pairs(found['options'], '=')}"]
    if model:
        parts.append(f"language model of {model['unit']}s, SHA-256 {model['sha256'][:12]}")
    if tuning:
        parts.append("chosen on {dataset} (WER {wer} %), SHA-256 ".format(**tuning))
        parts[-1] += tuning["chosen_sha256"][:12]
    return "; ".join(parts)


def _pairs(items: dict, sign: str) -> str:
    return " ".join(f"{key}{sign}{value}" for key, value in items.items())


def _energy(row: dict) -> str:
    """What told the energy, or why nothing did."""
    found = row["offline"].get("energy", {})
    if found.get("sources"):
        return f"above idle, by {', '.join(found['sources'])}"
    return f"not readable here: {'; '.join(found.get('not_readable', ())) or 'not measured'}"


def _to_text(row: dict) -> float:
    """Utterances per second from features to texts: decoding runs on the cores of the network."""
    decoding = row["decoding"]["ms_per_utterance"] / 1000 / row["environment"]["threads"]
    return 1 / (1 / row["offline"]["end_to_end_utterances_per_s"] + decoding)


def _server(row: dict) -> float | None:
    """The highest rate of arrivals that holds; 0 where none does, None where none was tried."""
    served = row.get("server")
    return served and (served["utterances_per_s"] or 0.0)


def _speakers(row: dict) -> float | None:
    """How many people who speak without a pause that rate is."""
    rate = _server(row)
    return rate and rate * row["server"]["audio_seconds"]


def _latency(kind: str, name: str, label: str = "") -> Column:
    """A column of batch latency; of single latency, which is of the whole way to posteriors; or of
    a server's, to the transcript.
    """
    source, prefix = {
        "batch": ("offline.latency_ms", "latency"),
        "single": ("single_stream.end_to_end_latency_ms", "stream"),
        "server": ("server.latency_ms", "server"),
    }[kind]
    return Column(f"{prefix}_{name}_ms", f"{source}.{name}", 2, label, 1)


COLUMNS = (
    Column("dataset", label="dataset"),
    Column("model", label="model"),
    Column("engine", label="engine"),
    Column("batch_size", label="batch size"),
    Column("decoder", label="decoder"),
    Column("verdict", "offline.verdict", label="verdict"),
    Column("utterances_per_s", "offline.utterances_per_s", 3, "utterances/s", 2),
    Column(
        "published_utterances_per_s", "published.published_utterances_per_s",
        label="published torch_aie utterances/s",
    ),
    Column(
        "published_acl_utterances_per_s", "published.published_acl_utterances_per_s",
        label="published ACL utterances/s",
    ),
    Column("zeros_utterances_per_s", "zeros.utterances_per_s", 3, "zeros by ais_bench/s", 2),
    Column("rtfx", "offline.rtfx", 3, "RTFx", 1),
    Column("wer", "accuracy.wer.percent", 3, "WER %", is_accuracy=True),
    Column("interval", label="WER 95 %", joins="{wer_low} to {wer_high}"),
    Column(
        "wer_whisper", "accuracy.normalised.wer.percent", 3, "WER % (whisper)", is_accuracy=True
    ),
    Column("published_wer", "published.published_wer", 3, "published WER %"),
    Column("cer", "accuracy.cer.percent", 3, "CER %", is_accuracy=True),
    Column("published_cer", "published.published_cer", 3, "published CER %"),
    Column("errors", label="S/D/I", joins="{substitutions}/{deletions}/{insertions}"),
    Column("identical", label="as eager", joins="{identical_transcripts}/{utterances}"),
    _latency("batch", "p50", "batch p50 ms"),
    _latency("batch", "p90", "batch p90 ms"),
    _latency("batch", "p99", "batch p99 ms"),
    _latency("single", "p50", "single p50 ms"),
    _latency("single", "p90", "single p90 ms"),
    _latency("single", "p99", "single p99 ms"),
    Column("server_utterances_per_s", _server, 3, "server utterances/s", 2),
    Column("decode_ms", "decoding.ms_per_utterance", 3, "decoding ms", 2),
    Column("note", lambda row: None if is_scored(row) else RANDOM, label="note"),
    # For programs, and for the notes.
    Column("utterances", "accuracy.utterances"),
    Column("scored", "accuracy.coverage.scored"),
    Column("of", "accuracy.coverage.of"),
    Column("empty", "accuracy.coverage.empty", is_accuracy=True),
    Column("coverage", coverage, is_accuracy=True),
    Column("skipped", skipped),
    Column("audio_notes", audio_notes),
    Column("dropped", dropped),
    Column("mixed", mixed),
    Column("normaliser", "accuracy.normalised.version", is_accuracy=True),
    Column("substitutions", "accuracy.wer.substitutions", is_accuracy=True),
    Column("deletions", "accuracy.wer.deletions", is_accuracy=True),
    Column("insertions", "accuracy.wer.insertions", is_accuracy=True),
    Column("wer_low", "accuracy.wer.low", 3, shown=2, is_accuracy=True),
    Column("wer_high", "accuracy.wer.high", 3, shown=2, is_accuracy=True),
    Column("cer_low", "accuracy.cer.low", 3, is_accuracy=True),
    Column("cer_high", "accuracy.cer.high", 3, is_accuracy=True),
    Column("ser", "accuracy.ser.percent", 3, is_accuracy=True),
    Column("wer_unseen", lambda r: _unseen(r).get("wer", {}).get("percent"), 3, is_accuracy=True),
    Column("unseen_utterances", lambda r: _unseen(r).get("utterances"), is_accuracy=True),
    Column(
        "calibration_error", "accuracy.confidence.expected_calibration_error", 4, is_accuracy=True
    ),
    Column("word_start_mean_s", "accuracy.times.mean", 4, is_accuracy=True),
    Column("word_start_p95_s", "accuracy.times.p95", 4, is_accuracy=True),
    Column("identical_transcripts", "agreement.identical_transcripts"),
    Column("largest_posterior_difference", "agreement.largest_posterior_difference"),
    Column("reasons", lambda r: r["offline"]["reasons"]),
    Column("disturbed", lambda r: r["offline"]["disturbed"]),
    Column("end_to_end_utterances_per_s", _to_text, 3),
    _latency("batch", "mean"),
    _latency("batch", "std"),
    _latency("batch", "p95"),
    *(_latency("batch", f"p{p}_{bound}") for p in BOUNDED for bound in ("low", "high")),
    Column("spread", "offline.spread", 3),
    Column("batches", "offline.batches"),
    Column("seconds", "offline.seconds", 3),
    *(
        Column(f"{phase}_seconds", f"offline.phase_seconds.{phase}")
        for phase in ("assemble", "upload", "forward", "download")
    ),
    Column("padding_share", "offline.padding_share", 3),
    Column("padding_share_longest", "offline.padding_shares.longest", 3),
    Column("padding_share_batch", "offline.padding_shares.batch", 3),
    Column("fill_up_rows", "offline.fill_up_rows"),
    Column("threads", "environment.threads"),
    Column("load_before", "offline.load_before", 3),
    Column("other_load", "offline.other_load", 3),
    Column("governor", "offline.governor"),
    Column("compile_seconds", "offline.compile_seconds", 3),
    Column("artefact_bytes", "offline.artefact_bytes"),
    Column("peak_memory_bytes", "offline.peak_memory_bytes"),
    Column("peak_device_memory_bytes", "offline.peak_device_memory_bytes"),
    Column("left_to_torch", lambda r: " ".join(
        r["offline"]["compile_notes"].get("left_to_torch") or []
    )),
    _latency("single", "mean"),
    _latency("single", "p95"),
    *(_latency("single", f"p{p}_{bound}") for p in BOUNDED for bound in ("low", "high")),
    Column("joules_per_utterance", "offline.energy.joules_per_utterance", 4),
    Column("joules_per_audio_hour", "offline.energy.joules_per_audio_hour", 1),
    Column("energy", _energy),
    Column("load_seconds", "single_stream.until_first.seconds", 3),
    Column("load_memory_bytes", "single_stream.until_first.memory_bytes"),
    Column("stream_verdict", "single_stream.verdict"),
    Column("stream_reasons", lambda r: r["single_stream"]["reasons"]),
    Column("stream_disturbed", lambda r: r["single_stream"]["disturbed"]),
    Column("stream_threads", "single_stream.environment.threads"),
    Column("stream_cpu", "single_stream.environment.cpu"),
    Column("server_speakers", _speakers, 1),
    *(_latency("server", name) for name in ("p50", "p90", "p99", "p99_low", "p99_high")),
    Column("server_percentile_ms", "server.percentile_ms", 2),
    Column("server_capacity", "server.capacity", 3),
    *(Column(f"server_rule_{name}", f"server.rule.{name}") for name in Rule._fields),
    Column("server_verdict", "server.verdict"),
    Column("server_reasons", lambda r: r.get("server", {}).get("reasons", [])),
    Column("server_disturbed", lambda r: r.get("server", {}).get("disturbed", [])),
    Column("engine_settings", lambda r: _pairs(r["configuration"]["engine"], "=")),
    Column("decoder_settings", _decoder_settings),
    Column("cpu", "environment.cpu"),
    Column("cores", "environment.cores"),
    Column("node", "environment.node"),
    Column("node_kind", node_kind),
    Column("device_name", device_name),
    Column("versions", lambda r: _pairs(r["environment"]["versions"], " ")),
    Column("git_revision", "environment.git_revision"),
    Column("checkpoint", lambda r: r["checkpoint"]),
    Column("parameters", lambda r: r["parameters"]),
    Column("checkpoint_sha256", lambda r: r["hashes"]["checkpoint"]),
    Column("manifest"),
    Column("dataset_sha256", "hashes.dataset"),
)  # fmt: skip


def summarise(records: Sequence[dict], published: Published) -> pd.DataFrame:
    """The table of records, with published figures beside ours, whatever the engine."""
    rows = [copy.copy(record) for record in records]
    for row in rows:
        known = published.get(row["dataset"], {}).get(row["batch_size"], {})
        row["published"] = known if is_greedy(row) else {}
    table = frame(COLUMNS, rows)
    random = [not is_scored(record) for record in records]
    table.loc[random, [c.name for c in COLUMNS if c.is_accuracy]] = None
    return table


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    """The table for readers."""
    text = as_text(COLUMNS, rows, readers=True)
    if rows["threads"].nunique() > 1:
        text["verdict"] += " (" + text["threads"] + " threads)"
    if not of_one_kind(rows["node_kind"], rows["device_name"]):
        places = zip(text["node_kind"], text["device_name"])
        text["verdict"] += [f" ({' '.join(filter(None, place))})" for place in places]
    return for_readers(COLUMNS, text)


def notes(rows: pd.DataFrame, remarks: Iterable[str]) -> list[str]:
    """Lines under the table: models, machine, and what the verdicts mean."""
    rows = rows.assign(
        **{
            name: rows[name].map("; ".join)
            for kind in ("", "stream_", "server_")
            for name in (f"{kind}reasons", f"{kind}disturbed")
        }
    )
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
    if not of_one_kind(rows["node_kind"], rows["device_name"]):
        kinds = sorted({*rows["node_kind"], *filter(None, rows["device_name"])})
        lines.append(
            "Timed on nodes of different kinds, whose speeds are not to be compared and are not "
            f"compared here: {'; '.join(kinds)}."
        )
    if (rows["verdict"] == "QUICK").any():
        lines.append("QUICK: timed with reduced settings; the speed is a rough figure.")
    timed = rows.drop_duplicates(["dataset", "model", "engine", "batch_size"])
    disturbed = (timed["verdict"] == "QUICK") & timed["disturbed"].astype(bool)
    for row in timed[(timed["verdict"] == "INVALID") | disturbed].itertuples():
        where = f"{row.dataset}/{row.model}/{row.engine} at batch size {row.batch_size}"
        lines.append(f"{row.verdict}: {where}: {row.reasons}.")
    for kind, what in (("stream", "one utterance at a time"), ("server", "as a server")):
        judged, why, found = (rows[f"{kind}_{n}"] for n in ("verdict", "disturbed", "reasons"))
        told = rows.assign(judged=judged, found=found)
        told = told[(judged == "INVALID") | (judged == "QUICK") & why.astype(bool)]
        for row in told.drop_duplicates(["dataset", "model", "engine", "found"]).itertuples():
            where = f"{row.dataset}/{row.model}/{row.engine}, {what}"
            lines.append(f"{row.judged}: {where}: {row.found}.")
    if (rows["verdict"] == "FAKE").any():
        lines.append("FAKE: computed by a stand-in for a device; no figure of these rows is real.")
    if rows["zeros_utterances_per_s"].notna().any():
        lines.append(ZEROS)
    served = rows[rows["server_utterances_per_s"].notna()]
    rules = served[[f"server_rule_{name}" for name in Rule._fields]].drop_duplicates()
    for rule in rules.to_numpy():
        found = Rule(*rule)
        wait = f", the first after {found.max_wait_ms:g} ms" if found.max_wait_ms else ""
        lines.append(SERVER.format(**{**found._asdict(), "wait": wait}))
    for engine, settings in rows[["engine", "engine_settings"]].drop_duplicates().to_numpy():
        found = re.match(r"backend=(\S+) device=([a-z]+)", settings or "")
        backend, device = found.groups() if found else ("", "")
        if backend in BACKENDS and device not in backend_class(backend).proven:
            lines.append(
                f"Engine {engine}: its backend {backend} has never run on real hardware of this "
                f"kind (device {device}); its authors had none."
            )
    for decoder, settings in rows[["decoder", "decoder_settings"]].drop_duplicates().to_numpy():
        if settings:
            lines.append(f"Decoder {decoder}: {settings}.")
    for row in timed[timed["left_to_torch"].astype(bool)].itertuples():
        where = f"{row.dataset}/{row.model}/{row.engine} at batch size {row.batch_size}"
        lines.append(f"Left to torch by the compiler of {where}: {row.left_to_torch}.")
    others = (rows["stream_threads"] != rows["threads"]) | (rows["stream_cpu"] != rows["cpu"])
    for row in rows[others].drop_duplicates(["dataset", "model", "engine"]).itertuples():
        lines.append(
            f"Single latency of {row.dataset}/{row.model}/{row.engine}: measured on "
            f"{row.stream_cpu} with {row.stream_threads} threads."
        )
    for row in rows[rows["mixed"] != ""].drop_duplicates(["engine", "mixed"]).itertuples():
        lines.append(f"Engine {row.engine}: {row.mixed}.")
    for version in rows["normaliser"].dropna().unique():
        lines.append(f"WER % (whisper): both sides under Whisper's English rules, {version}.")
    for dataset, part in rows.groupby("dataset", sort=False):
        # With random weights nothing is scored.
        told = part["coverage"].where(part["note"].isna(), part["skipped"])
        counts = part.assign(told=told)[["model", "engine", "told"]].drop_duplicates()
        counts = counts[counts["told"] != ""]
        alike = counts["told"].nunique() == 1
        for row in counts[:1].itertuples() if alike else counts.itertuples():
            where = dataset if alike else f"{dataset}/{row.model}/{row.engine}"
            lines.append(f"{where}: {row.told}.")
        for name in ("audio_notes", "dropped"):
            lines += [f"{dataset}: {text}." for text in part[name].unique() if text]
    lines.append(
        "Batch latency is of the forward pass of a batch; single latency is of one utterance at a "
        "time, from its features to its posteriors. Decoding ms are of an utterance on one core; "
        "of the speeds only end_to_end_utterances_per_s, in the TSV, has them in it. Accuracy is "
        "scored at every batch size; 'as eager' counts the transcripts that equal those of the "
        "plain float32 network, one utterance at a time."
    )
    return [*lines, *filter(None, remarks)]
