"""Time a compiled model over the features, in one of two scenarios.

`offline` takes all utterances in batches, longest first, and throughput counts. `single_stream`
takes one at a time in the manifest's order, and what counts is how long each has to wait.

The timed region is the reference's: forward and synchronize, after upload and before download.
Warm-up batches are dropped. The set is repeated until the least duration and number of batches are
reached, or exactly `--multi` times. Only real utterances count, not the rows that fill a batch up.
Assembling, uploading and downloading are timed beside it, for the end-to-end figures.
"""

from __future__ import annotations

import datetime
import itertools
import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deepspeech2 import backends, machine, sources, stage
from deepspeech2.compile import require_artefact
from deepspeech2.features import (
    Batch,
    FeatureSet,
    Padding,
    assemble,
    fill_up_rows,
    padding_shares,
    warm_up,
)
from deepspeech2.files import read_json, write_json
from deepspeech2.stage import UserError, log
from deepspeech2.verdicts import (
    GOVERNORS,
    MAX_OTHER_LOAD,
    MAX_SPREAD,
    MIN_BATCHES,
    MIN_SECONDS,
    WARMUP_BATCHES,
    Conditions,
    Settings,
    verdict,
)

LOOK_SECONDS = 0.3  # other load is looked for before the run, from the start on,
LOOKS = 10  # and again, so often at most: what the scheduler still does for us is over soon
SCENARIOS = ("offline", "single_stream")
MAX_KEPT = 2000  # batches whose single times are kept
P99_BATCHES = 100  # below this many batches the 99th percentile is the maximum, so it is left out


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
    session: backends.Session,
    features: FeatureSet,
    start: int,
    batch_size: int,
    padding: Padding,
) -> Times:
    """Run one batch and time its phases. `forward` includes `synchronize`."""
    clock = time.perf_counter
    t0 = clock()
    batch: Batch = assemble(features, start, batch_size, padding)
    t1 = clock()
    on_device = session.upload(batch.spectrograms, batch.lengths)
    t2 = clock()
    result = session.forward(on_device)
    session.synchronize()
    t3 = clock()
    session.download(result)
    t4 = clock()
    real = [features.utterances[position] for position in batch.positions]
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


def batches(features: FeatureSet, batch_size: int, scenario: str) -> list[int]:
    """Positions at which the batches of one pass start, in the scenario's order."""
    starts = list(range(0, len(features), batch_size))
    if scenario == "single_stream":
        starts.sort(key=lambda position: features.utterances[position]["given"])
    return starts


def measure(
    session: backends.Session,
    features: FeatureSet,
    batch_size: int,
    padding: Padding,
    settings: Settings,
    scenario: str = "offline",
) -> list[Times]:
    """Times of all batches after the warm-up."""
    one_pass = batches(features, batch_size, scenario)
    per_pass = len(one_pass)
    for start in warm_up(features, one_pass, batch_size, padding, settings.warmup_batches):
        time_batch(session, features, start, batch_size, padding)
    starts = itertools.cycle(one_pass)  # from the first batch again, whatever warmed up
    total = settings.multi * per_pass if settings.multi else None
    times: list[Times] = []
    spent = 0.0
    with stage.progress(None, total, f"timing, batch size {batch_size}", "batch") as bar:
        while (
            len(times) < total
            if total
            # Whole passes only, so that every utterance counts equally often.
            else len(times) % per_pass
            or len(times) < settings.min_batches
            or spent < settings.min_seconds
        ):
            times.append(time_batch(session, features, next(starts), batch_size, padding))
            spent += times[-1].forward
            bar.update()
    return times


def latencies(seconds: np.ndarray) -> dict[str, float | None]:
    """Mean, standard deviation and percentiles of times (n,) in seconds, in milliseconds."""
    values = {
        "mean": seconds.mean(),
        "std": seconds.std(ddof=1) if len(seconds) > 1 else 0.0,
        **{f"p{p}": np.percentile(seconds, p) for p in (50, 90, 95, 99)},
    }
    found: dict = {key: round(1000 * float(value), 4) for key, value in values.items()}
    return found if len(seconds) >= P99_BATCHES else {**found, "p99": None}


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


def quiet(load: machine.OtherLoad, enough: float) -> float:
    """Wait until others use a share of `enough` or less, though not for long; returns the last.

    `load` was started before: while this process was busy with itself, it could look already.
    """
    for look in range(LOOKS):
        if look:
            load.start()
        share = load.share(LOOK_SECONDS)
        if share <= enough:
            break
    return share


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat()


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--features", required=True, help="folder of features")
    parser.add_argument("--features-index", required=True, help="their index (JSON)")
    parser.add_argument("--model", required=True, help="the model's description (JSON)")
    parser.add_argument("--artefact", required=True, help="folder of the compiled model")
    parser.add_argument("--artefact-index", required=True, help="its index (JSON)")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--warmup-batches", type=int, default=WARMUP_BATCHES)
    parser.add_argument("--min-batches", type=int, default=MIN_BATCHES)
    parser.add_argument("--min-seconds", type=float, default=MIN_SECONDS)
    parser.add_argument("--multi", type=int, help="passes over the set, instead of the minima")
    parser.add_argument("--max-spread", type=float, default=MAX_SPREAD, help="of time per frame")
    parser.add_argument("--max-other-load", type=float, default=MAX_OTHER_LOAD, help="of the cores")
    parser.add_argument(
        "--governors", nargs="*", default=GOVERNORS, help="that are accepted; none named: all"
    )
    parser.add_argument("--scenario", choices=SCENARIOS, default=SCENARIOS[0])
    backends.add_arguments(parser)
    parser.add_argument("--timing", required=True, help="figures to write (JSON)")
    args = stage.parse(parser, argv)

    if args.scenario == "single_stream" and args.batch_size != 1:
        raise UserError(f"--batch-size: a single stream has batches of 1, not {args.batch_size}")
    settings = Settings(**{name: getattr(args, name) for name in Settings._fields})
    engine = backends.from_arguments(args)
    backend = backends.create(engine)
    load = machine.OtherLoad()
    backend.prepare()
    artefact = require_artefact(args.artefact, args.artefact_index, backend)
    features = FeatureSet(args.features, args.features_index)
    model = read_json(args.model)
    started, start = _now(), time.perf_counter()
    session = backend.open(Path(args.artefact), args.threads)
    opened = time.perf_counter() - start
    try:
        features.verify()
        load_before = quiet(load, settings.max_other_load)
        load.start()
        padding = engine.buckets or engine.padding
        times = measure(session, features, args.batch_size, padding, settings, args.scenario)
        conditions = Conditions(load_before, load.share(), machine.governor())
        device_memory = session.peak_memory_bytes()
    finally:
        session.close()
    figures = summarise(times, by_width=bool(engine.buckets))
    judged = verdict(figures, settings, conditions, backend.fake)
    environment = machine.environment(args.threads)
    versions = backend.versions()
    write_json(
        args.timing,
        {
            **judged,
            "scenario": args.scenario,
            **figures,
            "padding_shares": padding_shares(features, args.batch_size),
            "batch_size": args.batch_size,
            "fill_up_rows": fill_up_rows(len(features), args.batch_size, padding),
            **conditions._asdict(),
            "compile_seconds": artefact["compile_seconds"] + round(opened, 3),
            "artefact_bytes": artefact["bytes"],
            "compile_notes": {**artefact["notes"], **session.notes},
            "peak_memory_bytes": machine.peak_memory_bytes(),
            "peak_device_memory_bytes": device_memory,
            "settings": settings._asdict(),
            "engine": engine._asdict(),
            "environment": {**environment, "driver": versions.get("driver")},
            "versions": versions,
            "code_sha256": sources.digest(
                __spec__.name, backends.BACKENDS[engine.backend].module, *sources.BEFORE_A_RUN
            ),
            **{k: model[k] for k in ("checkpoint", "checkpoint_sha256", "parameters")},
            "manifest": read_json(args.features_index)["manifest"],
            "dataset_sha256": read_json(args.features_index)["manifest_sha256"],
            "started": started,
            "ended": _now(),
        },
    )
    log.info(
        "%s, %s: %.2f utterances/s, p90 %.1f ms",
        args.scenario.replace("_", " "),
        judged["verdict"],
        figures["utterances_per_s"],
        figures["latency_ms"]["p90"],
    )


if __name__ == "__main__":
    stage.run(main)
