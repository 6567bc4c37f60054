"""Time a compiled model over the features, in one of two scenarios.

`offline` takes all utterances in batches, longest first, and throughput counts. `single_stream`
takes one at a time in the manifest's order, and what counts is how long each has to wait.

The timed region is the reference's: forward and synchronize, after upload and before download.
Warm-up batches are dropped. The set is repeated until the least duration and number of batches are
reached, or exactly `--multi` times; of a large set a fixed sample of all lengths is taken. Only
real utterances count, not the rows that fill a batch up. Assembling, uploading and downloading are
timed beside it, for the end-to-end figures. Some of what was downloaded is compared with the
accuracy run's posteriors (proof.py), outside of all of it. The times of all batches are kept as a
table, which every figure can be computed from again.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from deepspeech2 import cli, engines, machine
from deepspeech2.cli import CORES, Cores, Input, Output, UserError, log
from deepspeech2.cores import throttled_seconds
from deepspeech2.engines import Engine, energy, pool
from deepspeech2.engines.artefact import require_artefact
from deepspeech2.engines.latency import latencies
from deepspeech2.engines.proof import Proof
from deepspeech2.engines.verdicts import (
    GOVERNORS,
    MAX_OTHER_LOAD,
    MAX_SPREAD,
    MIN_BATCHES,
    MIN_SECONDS,
    SAMPLE,
    WARMUP_BATCHES,
    Conditions,
    Settings,
    verdict,
)
from deepspeech2.features import parts
from deepspeech2.features.batches import Batches, FeatureSet
from deepspeech2.files import read_sealed, read_text, replacing, sha256, write_json

SCENARIOS = ("offline", "single_stream")
MAX_KEPT = 2000  # batches whose single times are kept


Compare = Callable[[list[int], np.ndarray, np.ndarray], None]


class Times(NamedTuple):
    """Seconds of each phase of one batch, its utterances, their audio seconds, frames and rows.

    `utterances` and `real_frames` are without the `rows` that fill a batch up.
    """

    assemble: float
    upload: float
    forward: float
    download: float
    utterances: int
    audio_seconds: float
    real_frames: int
    padded_frames: int
    rows: int


def time_batch(
    session: engines.Session, batches: Batches, start: int, compare: Compare | None = None
) -> Times:
    """Run the batch at `start` and time its phases. `forward` includes `synchronize`.

    `compare` is given the outputs once all is timed, as `proof.Proof.compare` takes them.
    """
    clock = time.perf_counter
    t0 = clock()
    batch = batches.assemble(start)
    t1 = clock()
    on_device = session.upload(batch.spectrograms, batch.lengths)
    t2 = clock()
    result = session.forward(on_device)
    session.synchronize()
    t3 = clock()
    probabilities, lengths = session.download(result)
    t4 = clock()
    if compare:
        compare(batch.positions, probabilities, lengths)
    real = [batches.features.utterances[position] for position in batch.positions]
    return Times(
        t1 - t0,
        t2 - t1,
        t3 - t2,
        t4 - t3,
        len(real),
        sum(utterance["seconds"] for utterance in real),
        sum(utterance["frames"] for utterance in real),
        batch.spectrograms.shape[0] * batch.spectrograms.shape[3],
        batch.spectrograms.shape[0],
    )


def starts_of(batches: Batches, scenario: str) -> list[int]:
    """Positions at which the batches of one pass start, in the scenario's order."""
    utterances = batches.features.utterances
    if scenario == "single_stream":
        return sorted(batches.starts, key=lambda start: utterances[start]["manifest_position"])
    return list(batches.starts)


def measure(
    session: engines.Session,
    batches: Batches,
    settings: Settings,
    scenario: str = "offline",
    compare: Compare | None = None,
    first: Callable[[Times], None] = lambda _: None,
) -> list[Times]:
    """Times of all batches after the warm-up, whose outputs `compare` is given.

    `first` is given those of the very first batch, once it is done.
    """
    one_pass = starts_of(batches, scenario)
    per_pass = len(one_pass)
    warm_ups = batches.warm_up(one_pass, settings.warmup_batches)
    for number, start in enumerate(warm_ups):
        one = time_batch(session, batches, start)
        if number == 0:
            first(one)
    starts = itertools.cycle(one_pass)  # from the first batch again, whatever warmed up
    total = settings.multi * per_pass if settings.multi else None
    times: list[Times] = []
    spent = 0.0
    with cli.progress(None, total, f"timing, batch size {batches.batch_size}", "batch") as bar:
        while (
            len(times) < total
            if total
            # Whole passes only, so that every utterance counts equally often.
            else len(times) % per_pass
            or len(times) < settings.min_batches
            or spent < settings.min_seconds
        ):
            times.append(time_batch(session, batches, next(starts), compare))
            if not warm_ups and len(times) == 1:
                first(times[0])
            spent += times[-1].forward
            bar.update()
    return times


def spread(times: list[Times], by_width: bool) -> float:
    """Coefficient of variation of the time per frame, as far as no difference of width explains it.

    Batches of their own widths are compared by their time per padded frame; with `by_width`, where
    many batches share one of a few widths, with the others of that width. A last batch of fewer
    rows (only where it is not filled up) is left out: fewer rows have another pace.
    """
    most = max(t.rows for t in times)
    times = [t for t in times if t.rows == most]
    pace = np.array([t.forward / t.padded_frames for t in times])
    if by_width:
        frames = np.array([t.padded_frames for t in times])
        means = {width: pace[frames == width].mean() for width in set(frames.tolist())}
        pace = pace / np.array([means[width] for width in frames.tolist()])
    return float(pace.std(ddof=1) / pace.mean()) if len(pace) > 1 else 0.0


def summarise(times: list[Times], by_width: bool = False) -> dict:
    """The figures of a measurement. Latencies in milliseconds, shares from 0 to 1."""
    forward = np.array([t.forward for t in times])
    everything = np.array([t.assemble + t.upload + t.forward + t.download for t in times])
    utterances = sum(t.utterances for t in times)
    audio = sum(t.audio_seconds for t in times)
    real_frames = sum(t.real_frames for t in times)
    padded_frames = sum(t.padded_frames for t in times)
    return {
        "batches": len(times),
        "utterances": utterances,
        "seconds": round(float(forward.sum()), 4),
        "utterances_per_s": utterances / float(forward.sum()),
        "rtfx": audio / float(forward.sum()),
        "end_to_end_utterances_per_s": utterances / float(everything.sum()),
        "latency_ms": latencies(forward),
        "end_to_end_latency_ms": latencies(everything),
        # For the picture of the distribution: single batches, the first MAX_KEPT.
        "batch_ms": [round(1000 * float(t), 3) for t in forward[:MAX_KEPT]],
        "end_to_end_batch_ms": [round(1000 * float(t), 3) for t in everything[:MAX_KEPT]],
        "spread": spread(times, by_width),
        "phase_seconds": {
            name: round(sum(getattr(t, name) for t in times), 4)
            for name in ("assemble", "upload", "forward", "download")
        },
        "padding_share": 1 - real_frames / padded_frames,
    }


def write_times(path: Path, times: list[Times]) -> str:
    """Write the times of all batches, as a table (TSV); returns its SHA-256."""
    with replacing(path) as temporary:
        lines = ["\t".join(Times._fields), *("\t".join(map(repr, t)) for t in times)]
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
    return sha256(path)


def read_times(path: Path) -> list[Times]:
    """The times of all batches, as `write_times` wrote them. Raises `UserError` for all else."""
    head, *lines = read_text(path).rstrip("\n").split("\n")
    kinds = [float] * 4 + [int, float, int, int, int]
    try:
        if head.split("\t") != list(Times._fields) or not lines:
            raise ValueError
        cells = [line.split("\t") for line in lines]
        if {len(row) for row in cells} != {len(kinds)}:
            raise ValueError
        times = [Times(*(kind(cell) for kind, cell in zip(kinds, row))) for row in cells]
        if not all(math.isfinite(value) and value >= 0 for row in times for value in row):
            raise ValueError
        counts = (count for t in times for count in (t.utterances, t.padded_frames, t.rows))
        if not (all(counts) and sum(t.forward for t in times)):
            raise ValueError
    except (ValueError, OverflowError):
        raise UserError(f"{path}: not a table of times that timing wrote") from None
    return times


def main(
    features: Input,
    features_index: Input,
    model: Input,
    artefact: Input,
    artefact_index: Input,
    posteriors: Input,
    posteriors_index: Input,
    batch_size: int,
    engine: Engine,
    timing: Output,
    times: Output | None = None,
    scenario: Literal[SCENARIOS] = "offline",
    threads: Cores = CORES,
    warmup_batches: int = WARMUP_BATCHES,
    min_batches: int = MIN_BATCHES,
    min_seconds: float = MIN_SECONDS,
    multi: int | None = None,
    max_spread: float = MAX_SPREAD,
    max_other_load: float = MAX_OTHER_LOAD,
    governors: list[str] = GOVERNORS,
    sample: int = SAMPLE,
) -> None:
    """Command line.

    features: folder of features
    features_index: their index (JSON)
    model: the model's description (JSON)
    artefact: folder of the compiled model
    artefact_index: its index (JSON)
    posteriors: the accuracy run's, which the timed run's are compared with
    posteriors_index: their index (JSON)
    batch_size: utterances in a batch
    engine: how to run the model: JSON like an entry of the configuration's engines, or the name
        of a backend
    timing: figures to write (JSON)
    times: seconds of every batch to write, which the figures are of (TSV)
    scenario: offline takes batches, single_stream one utterance at a time
    threads: threads of the host
    warmup_batches: batches that are dropped first
    min_batches: least timed batches
    min_seconds: least timed seconds
    multi: passes over the set, instead of the minima
    max_spread: largest coefficient of variation of the time per frame
    max_other_load: largest share of the cores that other programs may use
    governors: CPU frequency governors that are accepted; none named: all
    sample: utterances that are timed of a larger set
    """
    if scenario == "single_stream" and batch_size != 1:
        raise UserError(f"--batch-size: a single stream has batches of 1, not {batch_size}")
    whole = FeatureSet(features, features_index)
    settings = Settings(
        warmup_batches, min_batches, min_seconds, multi, max_spread, max_other_load, governors,
        sample if sample < whole.description.get("of", len(whole)) else SAMPLE,
    )  # fmt: skip
    placed = pool.place(engine)
    backend = engines.create(placed)
    load = machine.OtherLoad()
    backend.prepare()
    compiled = require_artefact(artefact, artefact_index, backend, batch_size)
    timed = whole.part(parts.sample(whole.utterances, sample))
    batches = Batches(timed, batch_size, engine.pad_to)
    proof = Proof(posteriors, posteriors_index, batches.features, batch_size)
    description = read_sealed(model)
    started, start = machine.now(), time.perf_counter()
    session = backend.open(artefact, threads)
    opened = time.perf_counter() - start
    meter = energy.Meter(placed.device)
    until_first: dict = {}

    def first(its: Times) -> None:
        seconds = opened + its.assemble + its.upload + its.forward + its.download
        until_first.update(seconds=round(seconds, 3), memory_bytes=machine.peak_memory_bytes())

    try:
        batches.features.verify()
        load_before = machine.quiet(load, settings.max_other_load)
        idle = meter.idle()
        load.start()
        throttled = throttled_seconds()
        meter.start()
        measured = measure(session, batches, settings, scenario, proof.compare, first)
        used = meter.stop()
        throttled = throttled_seconds() - throttled
        conditions = Conditions(load_before, load.share(), machine.governor(), round(throttled, 3))
        device_memory = session.peak_memory_bytes()
    finally:
        session.close()
    figures = summarise(measured, by_width=bool(engine.buckets))
    checked = proof.result(backend)
    judged = verdict(figures, settings, conditions, backend.fake, checked["wrong"])
    versions = backend.versions()
    write_json(
        timing,
        {
            **judged,
            "scenario": scenario,
            **figures,
            "padding_shares": {
                padding: Batches(batches.features, batch_size, padding).padding_share()
                for padding in engines.PADDINGS
            },
            "batch_size": batch_size,
            "sample": len(timed),
            "fill_up_rows": batches.fill_up_rows(),
            "proof": checked,
            "until_first": until_first,
            "energy": {
                **energy.figures(
                    idle, used, figures["utterances"], sum(t.audio_seconds for t in measured)
                ),
                "not_readable": meter.lacking,
            },
            "times_sha256": write_times(times, measured) if times else None,
            **conditions._asdict(),
            "compile_seconds": compiled["compile_seconds"] + round(opened, 3),
            "artefact_bytes": compiled["bytes"],
            "compile_notes": {**compiled["notes"], **session.notes},
            "peak_memory_bytes": machine.peak_memory_bytes(),
            "peak_device_memory_bytes": device_memory,
            "settings": settings._asdict(),
            "engine": engine._asdict(),
            "environment": {
                **machine.environment(threads, placed.device),
                "driver": versions.get("driver"),
            },
            "versions": versions,
            "code_sha256": engines.code_sha256("deepspeech2.engines.timing", engine),
            **{key: description[key] for key in ("checkpoint", "checkpoint_sha256", "parameters")},
            "manifest": batches.features.description["manifest"],
            "dataset_sha256": batches.features.description["manifest_sha256"],
            "started": started,
            "ended": machine.now(),
        },
    )
    log.info(
        "%s, %s: %.2f utterances/s, p90 %.1f ms",
        scenario.replace("_", " "),
        judged["verdict"],
        figures["utterances_per_s"],
        figures["latency_ms"]["p90"],
    )


if __name__ == "__main__":
    cli.run(main)
