"""Time a compiled model as a service: utterances arrive at random, and each waits for its text.

An utterance's latency is from its arrival to its transcript: it waits, its batch is assembled,
uploaded, computed and downloaded, and it is decoded, one after the other. Which rate holds, and how
the highest one is found, is in arrivals.py. Utterances are drawn from those that are timed, each as
likely as the others. Arrivals are drawn before, so that nothing but the service runs.

Some of the outputs are compared with the accuracy run's posteriors (proof.py), between the trials.
The times of all utterances are kept as a table, which every figure can be computed from again.
"""

from __future__ import annotations

import bisect
import time

import numpy as np

from deepspeech2 import cli, engines, files, machine
from deepspeech2.cli import CORES, Cores, Input, Output, log
from deepspeech2.cores import throttled_seconds
from deepspeech2.engines import Engine, pool, verdicts
from deepspeech2.engines.artefact import require_artefact
from deepspeech2.engines.latency import latencies
from deepspeech2.engines.proof import Proof
from deepspeech2.engines.verdicts import Conditions, Settings, verdict
from deepspeech2.features import parts
from deepspeech2.features.batches import Batches, FeatureSet
from deepspeech2.scoring import arpa, decoders, tuned
from deepspeech2.scoring.decoders import Decoder
from deepspeech2.serving import arrivals
from deepspeech2.serving.arrivals import Rule, Trial

FULL_SECONDS = 2.0  # for which full batches are computed, to see how many they are
KEPT = 100  # batches of a trial whose outputs are kept to be compared


class Service:
    """A session that utterances are given to as they come."""

    def __init__(self, session: engines.Session, batches: Batches, decode: Decoder, rule: Rule):
        self.session, self.batches, self.decode, self.rule = session, batches, decode, rule
        self.outputs: list[tuple[list[int], np.ndarray, np.ndarray]] = []

    def answer(self, positions: list[int]) -> None:
        """Transcripts of some utterances, as one batch."""
        batch = self.batches.gather(sorted(positions))  # the longest first
        result = self.session.forward(self.session.upload(batch.spectrograms, batch.lengths))
        self.session.synchronize()
        probabilities, lengths = self.session.download(result)
        for row in range(len(positions)):
            self.decode(probabilities[row, : lengths[row]])
        if len(self.outputs) < KEPT:
            self.outputs.append((batch.positions, probabilities, lengths))

    def capacity(self, warm_ups: int) -> float:
        """Utterances per second (1/s) of full batches, one after the other."""
        size, clock = self.rule.max_batch, time.perf_counter
        random = np.random.default_rng(0)
        for count in range(warm_ups):
            self.answer([count % len(self.batches.features)] * size)
        start, done = clock(), 0
        while clock() - start < FULL_SECONDS:
            self.answer(random.integers(len(self.batches.features), size=size).tolist())
            done += size
        return done / (clock() - start)

    def trial(self, rate: float, count: int, seed: int) -> Trial:
        """What comes of a rate; it ends once that cannot hold any more."""
        rule = self.rule
        arrived, drawn = arrivals.draw(rate, count, seed, len(self.batches.features))
        due, wanted = arrived.tolist(), drawn.tolist()
        done, sizes = np.zeros(count), np.zeros(count, int)
        bound, wait = rule.latency_ms / 1000, rule.max_wait_ms / 1000
        allowed, late, first = rule.allowed(count), 0, 0
        clock = time.perf_counter
        start = clock()
        with cli.progress(None, count, f"{rate:.4g} utterances/s", "utterance") as bar:
            while first < count and not late > allowed >= 0:
                full = first + rule.max_batch - 1
                begin = min(due[first] + wait, due[full] if full < count else np.inf)
                if (early := begin - (clock() - start)) > 0:
                    time.sleep(early)
                last = min(bisect.bisect_right(due, clock() - start), full + 1)
                last = max(last, first + 1)  # where a clock's rounding is before its own time
                self.answer(wanted[first:last])
                done[first:last], sizes[first:last] = clock() - start, last - first
                late += int((done[first:last] - arrived[first:last] > bound).sum())
                bar.update(last - first)
                first = last
        return Trial(rate, count, arrived[:first], done[:first], sizes[:first])


def summarise(rule: Rule, capacity: float, found: float | None, trials: list[Trial]) -> dict:
    """The figures of a search. Latencies in milliseconds, rates in utterances per second."""
    at = arrivals.at(trials, found) if found else []
    pooled = np.concatenate([trial.latencies for trial in at]) if at else None
    of_trials = [
        {
            "rate": trial.rate,
            "utterances": len(trial.done),
            "late": trial.late(rule),
            "holds": trial.holds(rule) if rule.allowed(trial.count) >= 0 else None,
            "latency_ms": latencies(trial.latencies),
            "percentile_ms": _percentile(rule, trial.latencies),
            "mean_batch": float(1 / (1 / trial.sizes).mean()),
        }
        for trial in trials
    ]
    return {
        "rule": rule._asdict(),
        "capacity": capacity,
        "utterances_per_s": found,
        "batches": round(sum(float((1 / trial.sizes).sum()) for trial in at)),
        "seconds": round(sum(float(trial.done[-1]) for trial in at), 4),
        "latency_ms": None if pooled is None else latencies(pooled),
        "percentile_ms": None if pooled is None else _percentile(rule, pooled),
        "trials": of_trials,
    }


def _percentile(rule: Rule, seconds: np.ndarray) -> float:
    return round(1000 * float(np.percentile(seconds, rule.percentile)), 4)


def judge(
    figures: dict, settings: Settings, conditions: Conditions, fake: bool, wrong: str
) -> dict[str, object]:
    """What a search is worth. That no rate holds needs no least number of batches and seconds."""
    told = {"spread": 0.0, "batches": figures["batches"], "seconds": figures["seconds"]}
    if figures["utterances_per_s"] is None:
        told.update(batches=verdicts.MIN_BATCHES, seconds=verdicts.MIN_SECONDS)
    return verdict(told, settings, conditions, fake, wrong)


def settings_of(
    rule: Rule, warmup: int, max_other_load: float, governors: list[str], sample: int
) -> Settings:
    """The settings by which a search is judged: its seconds are the least timed ones."""
    return Settings(
        warmup, verdicts.MIN_BATCHES, rule.seconds, None, verdicts.MAX_SPREAD, max_other_load,
        governors, sample,
    )  # fmt: skip


def main(
    features: Input,
    features_index: Input,
    model: Input,
    artefact: Input,
    artefact_index: Input,
    posteriors: Input,
    posteriors_index: Input,
    decoder: decoders.Settings,
    language_model_index: Input | None,
    tuning: Input | None,
    engine: Engine,
    latency_ms: float,
    max_batch: int,
    max_wait_ms: float,
    seconds: float,
    percentile: float,
    server: Output,
    times: Output,
    threads: Cores = CORES,
    warmup_batches: int = verdicts.WARMUP_BATCHES,
    max_other_load: float = verdicts.MAX_OTHER_LOAD,
    governors: list[str] = verdicts.GOVERNORS,
    sample: int = verdicts.SAMPLE,
) -> None:
    """Command line.

    features: folder of features
    features_index: their index (JSON)
    model: the model's description (JSON)
    artefact: folder of the model, compiled for batches of --max-batch
    artefact_index: its index (JSON)
    posteriors: the accuracy run's at that batch size, which the timed run's are compared with
    posteriors_index: their index (JSON)
    decoder: how posteriors become text: JSON with kind and options
    language_model_index: index of the decoder's language model (JSON)
    tuning: options that were chosen by scoring.tune (JSON)
    engine: how to run the model: JSON like an entry of the configuration's engines, or the name
        of a backend
    latency_ms: the most that it may take from an arrival to its transcript
    max_batch: utterances in a batch, at most
    max_wait_ms: how long an utterance waits for others, at most, while the device is free
    seconds: for how long utterances arrive at each rate, at least
    percentile: how many percent of the utterances have to be in time
    server: figures to write (JSON)
    times: times of every utterance to write, which the figures are of (TSV)
    threads: threads of the host
    warmup_batches: batches that are dropped first
    max_other_load: largest share of the cores that other programs may use
    governors: CPU frequency governors that are accepted; none named: all
    sample: utterances that are timed of a larger set
    """
    rule = Rule(latency_ms, max_batch, max_wait_ms, seconds, percentile)
    whole = FeatureSet(features, features_index)
    of_sample = sample if sample < whole.description.get("of", len(whole)) else verdicts.SAMPLE
    settings = settings_of(rule, warmup_batches, max_other_load, governors, of_sample)
    placed = pool.place(engine)
    backend = engines.create(placed)
    load = machine.OtherLoad()
    backend.prepare()
    require_artefact(artefact, artefact_index, backend, max_batch)
    timed = whole.part(parts.sample(whole.utterances, sample))
    batches = Batches(timed, max_batch, engine.pad_to)
    if engine.buckets:  # of which the artefact is compiled for those that the set's batches have
        batches = Batches(timed, max_batch, batches.widths())
    proof = Proof(posteriors, posteriors_index, timed, max_batch)
    language_model, about = arpa.read(language_model_index)
    decoding, chosen = tuned.applied(decoder, tuning, about)
    decode = decoders.create(decoding, whole.description["labels"], language_model)
    description = files.read_sealed(model)
    started = machine.now()
    session = backend.open(artefact, threads)
    service = Service(session, batches, decode, rule)

    def run(rate: float, count: int, seed: int) -> Trial:
        found = service.trial(rate, count, seed)
        for outputs in service.outputs:
            proof.compare(*outputs)
        service.outputs.clear()
        return found

    try:
        timed.verify()
        load_before = machine.quiet(load, settings.max_other_load)
        load.start()
        throttled = throttled_seconds()
        capacity = service.capacity(warmup_batches)
        found, trials = arrivals.search(rule, capacity, run)
        throttled = throttled_seconds() - throttled
        conditions = Conditions(load_before, load.share(), machine.governor(), round(throttled, 3))
    finally:
        session.close()
    figures = summarise(rule, capacity, found, trials)
    checked = proof.result(backend)
    judged = judge(figures, settings, conditions, backend.fake, checked["wrong"])
    versions = backend.versions()
    files.write_json(
        server,
        {
            **judged,
            "scenario": "server",
            **figures,
            "audio_seconds": float(np.mean([u["seconds"] for u in timed.utterances])),
            "sample": len(timed),
            "proof": checked,
            "times_sha256": arrivals.write(times, trials),
            **conditions._asdict(),
            "settings": settings._asdict(),
            "engine": engine._asdict(),
            "decoder": {**decoding._asdict(), "language_model": about, "tuning": chosen},
            "environment": {
                **machine.environment(threads, placed.device),
                "driver": versions.get("driver"),
            },
            "versions": versions,
            "code_sha256": engines.code_sha256("deepspeech2.serving.server", engine),
            **{key: description[key] for key in ("checkpoint", "checkpoint_sha256", "parameters")},
            "manifest": timed.description["manifest"],
            "dataset_sha256": timed.description["manifest_sha256"],
            "started": started,
            "ended": machine.now(),
        },
    )
    if found:
        log.info("server, %s: %.4g utterances/s", judged["verdict"], found)
    else:
        log.info("server, %s: no rate holds", judged["verdict"])


if __name__ == "__main__":
    cli.run(main)
