"""The scenario server, with a clock that the test holds: arrivals, batches, which rate holds."""

import numpy as np
import pytest
import scipy.stats
from deepspeech2 import files
from deepspeech2.cli import UserError
from deepspeech2.engines import verdicts
from deepspeech2.features.batches import Batches
from deepspeech2.serving import arrivals, server
from deepspeech2.serving.arrivals import Rule, Trial
from helpers import Clock, Features

RULE = Rule(100.0, 4, 0.0, 10.0)
LONG = 1e9  # ms


class Session:
    """Its `forward` takes a time that the number of rows decides."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds, self.decoded = clock, seconds, []

    def upload(self, spectrograms, lengths):
        assert list(lengths) == sorted(lengths, reverse=True)  # as packed sequences need it
        return len(lengths)

    def forward(self, rows):
        self.clock.now += self.seconds(rows)
        return rows

    def synchronize(self):
        pass

    def download(self, rows):
        return np.zeros((rows, 2, 2), np.float32), np.full(rows, 2)


@pytest.fixture
def service(monkeypatch):
    """Makes services of a rule and the seconds of a batch, by its rows."""
    clock = Clock()

    def sleep(seconds):
        assert seconds > 0
        clock.now += seconds

    def make(rule, seconds):
        monkeypatch.setattr(server.time, "perf_counter", clock)
        monkeypatch.setattr(server.time, "sleep", sleep)
        batches = Batches(Features(5), rule.max_batch, "batch")
        session = Session(clock, seconds)
        return server.Service(session, batches, lambda one: session.decoded.append(len(one)), rule)

    return make


@pytest.mark.parametrize("count", [1, 29, *range(290, 310), 473, 500, 1000, 12345, 10**5])
@pytest.mark.parametrize("percentile", [50.0, 90.0, 99.0, 99.9])
def test_how_many_may_be_late(count, percentile):
    """So few are seen with a probability of 5 % at most where as many are late as may be."""
    rule, share = RULE._replace(percentile=percentile), 1 - percentile / 100
    late = rule.allowed(count)
    assert late == -1 or scipy.stats.binom.cdf(late, count, share) <= 0.05
    assert scipy.stats.binom.cdf(late + 1, count, share) > 0.05


def test_a_rate_that_is_too_high_seldom_holds():
    """Of rates at which 1 % are late, one in twenty at most is taken to hold."""
    rule = RULE
    late = np.random.default_rng(0).random((4000, 500)) < 0.01
    ones = np.ones(500)
    holds = [Trial(1.0, 500, 0 * ones, 0.05 + row, ones).holds(rule) for row in late]
    assert 0.03 < np.mean(holds) <= 0.055


def test_arrivals_are_a_poisson_process():
    times, drawn = arrivals.draw(50.0, 20_000, 3, 7)
    assert scipy.stats.kstest(np.diff(times, prepend=0), "expon", (0, 1 / 50)).pvalue > 0.01
    per_second = np.bincount(times.astype(int))[:-1]
    assert per_second.mean() == pytest.approx(50, rel=0.03)
    assert per_second.var() == pytest.approx(50, rel=0.2)  # of a Poisson distribution, as its mean
    assert scipy.stats.chisquare(np.bincount(drawn, minlength=7)).pvalue > 0.01
    again, others = arrivals.draw(50.0, 20_000, 3, 7), arrivals.draw(50.0, 20_000, 4, 7)
    assert np.array_equal(times, again[0]) and np.array_equal(drawn, again[1])
    assert not np.array_equal(times, others[0])


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_waiting_is_that_of_theory(service, load):
    """One at a time, of one length: a queue M/D/1, whose mean wait Pollaczek and Khinchine know."""
    rule = Rule(LONG, 1, 0.0, 2000.0)
    count = rule.count(load / 0.02)
    found = service(rule, lambda rows: 0.02).trial(load / 0.02, count, 1)
    assert len(found.done) == count > 25_000
    wait = found.latencies.mean() - 0.02
    assert wait == pytest.approx(0.02 * load / (2 * (1 - load)), rel=0.05)


@pytest.mark.parametrize(
    ("wait_ms", "sizes"),
    [
        (0.0, [1, 3, 3, 2, 1]),  # those that came in the 3 s of the batch before
        (2500.0, [3, 3, 3, 1]),  # the first waits for 2.5 s, or until four are there
        (LONG, [4, 4, 2]),
    ],
)
def test_how_utterances_are_batched(service, monkeypatch, wait_ms, sizes):
    due = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 30])
    monkeypatch.setattr(arrivals, "draw", lambda *_: (due, np.arange(10) % 5))
    monkeypatch.setattr(Rule, "allowed", lambda *_: 10)
    made_for = service(Rule(LONG, 4, wait_ms, 1.0), lambda rows: 3.0)
    found = made_for.trial(1.0, 10, 0)
    assert made_for.session.decoded == [2] * 10  # every utterance, of two frames
    assert found.sizes.tolist() == [size for size in sizes for _ in range(size)]
    assert (found.latencies >= 3).all() and (np.diff(found.done) >= 0).all()


def test_a_trial_ends_once_it_cannot_hold(service):
    count = RULE.count(50.0)
    found = service(RULE, lambda rows: 1.0).trial(50.0, count, 0)
    assert len(found.done) < 20 < count and not found.holds(RULE)
    assert found.late(RULE) > RULE.allowed(count)


def test_a_trial_of_too_few_utterances_goes_to_its_end(service):
    found = service(RULE, lambda rows: 1.0).trial(50.0, 125, 0)
    assert len(found.done) == 125 and found.late(RULE) > 100 and not found.holds(RULE)
    assert server.summarise(RULE, 1.0, 50.0, [found])["trials"][0]["holds"] is None


def test_the_rate_that_is_found_is_the_highest(service):
    """Whose 99th percentile a longer run puts at the bound, and not far below it."""
    rule = Rule(100.0, 1, 0.0, 100.0)
    one = service(rule, lambda rows: 0.02)
    found, trials = arrivals.search(rule, one.capacity(2), one.trial)
    assert found is not None and all(t.holds(rule) for t in arrivals.at(trials, found))
    long = service(rule._replace(latency_ms=LONG), lambda rows: 0.02)
    for rate, low, high in ((found, 0.05, 0.1), (1.15 * found, 0.1, 9)):
        assert low < np.percentile(long.trial(rate, 40_000, 99).latencies, 99) <= high


@pytest.mark.parametrize("bound", [0.06, 0.1, 0.3])
def test_a_rate_is_seldom_found_that_is_too_high(bound):
    """Latencies of a queue depend on each other; of 100 searches 5 at most are 5 % above the limit.

    One at a time, 20 ms each: an utterance is done 20 ms after it came, or after the one before.
    """
    rule, step = Rule(1000 * bound, 1, 0.0, 10.0), 0.02

    def run(rate, count, seed):
        arrived, _ = arrivals.draw(rate, count, seed, 1)
        busy = step * np.arange(count)
        done = busy + step + np.maximum.accumulate(arrived - busy)
        late = np.cumsum(done - arrived > bound) > rule.allowed(count)
        came = int(late.argmax()) + 1 if late[-1] else count
        return Trial(rate, count, arrived[:came], done[:came], np.ones(came, int))

    low, high = 1.0, 49.9
    while high - low > 0.01:
        rate = (low + high) / 2
        late = np.percentile(run(rate, 10**6, 0).latencies, 99) > bound
        low, high = (low, rate) if late else (rate, high)
    found = [
        arrivals.search(
            rule, 50.0, lambda rate, count, seed, n=n: run(rate, count, 1000 * n + seed)
        )
        for n in range(1, 101)
    ]
    shares = np.array([rate for rate, _ in found]) / low
    assert np.mean(shares > 1.05) <= 0.05 and np.median(shares) > 0.65


def made(rate, holds, count=1000):
    late = 0.01 if holds else 1.0
    return Trial(rate, count, np.zeros(count), np.full(count, late), np.ones(count, int))


@pytest.mark.parametrize("limit", [6.0, 33.3, 71.0, 99.9])
def test_search_ends_just_below_the_limit(limit):
    found, trials = arrivals.search(
        RULE, 100.0, lambda rate, count, _: made(rate, rate < limit, count)
    )
    assert limit * 0.94 < found < limit
    times = [trial.count / RULE.count(found) for trial in arrivals.at(trials, found)]
    assert times == [1, 3, 3] and len(trials) < 15
    assert [t.rate for t in trials[-3:]] == [share * found for share in arrivals.SHARES]


def test_a_rate_that_does_not_hold_again_is_lowered():
    """By so much at a time, until one holds three times over."""
    found, trials = arrivals.search(
        RULE, 100.0, lambda rate, count, seed: made(rate, rate < 50 or seed < 6, count)
    )
    assert 50 * 0.94 < found < 50 and len(arrivals.at(trials, found)) == 2


def test_where_no_rate_holds():
    found, trials = arrivals.search(RULE, 100.0, lambda rate, count, _: made(rate, False, count))
    assert found is None and min(t.rate for t in trials) < 5 and len(trials) < 10
    figures = server.summarise(RULE, 100.0, found, trials)
    assert figures["utterances_per_s"] is None and figures["latency_ms"] is None
    settings = server.settings_of(RULE, 5, 0.1, [], verdicts.SAMPLE)
    conditions = verdicts.Conditions(0.0, 0.0, None)
    judged = server.judge(figures, settings, conditions, False, "")
    assert judged == {"verdict": "VALID", "reasons": [], "disturbed": []}


@pytest.mark.parametrize(
    ("change", "expected", "reason"),
    [
        ({}, "VALID", ""),
        ({"seconds": 3.0}, "QUICK", ""),
        ({"warmup": 1}, "QUICK", "1 of 5 warm-up batches"),
        ({"load": 0.2}, "INVALID", "other load 20% above 10%"),
        ({"wrong": "it differs"}, "INVALID", "it differs"),
        ({"fake": True}, "FAKE", "a fake device computed this"),
    ],
)
def test_verdicts(change, expected, reason):
    rule = RULE._replace(seconds=change.get("seconds", 10.0))
    trials = [made(60.0, True) for _ in range(3)]
    figures = {**server.summarise(rule, 100.0, 60.0, trials), "seconds": 30.0}
    settings = server.settings_of(rule, change.get("warmup", 5), 0.1, [], verdicts.SAMPLE)
    conditions = verdicts.Conditions(0.0, change.get("load", 0.0), None)
    fake, wrong = change.get("fake", False), change.get("wrong", "")
    judged = server.judge(figures, settings, conditions, fake, wrong)
    assert judged["verdict"] == expected and reason in "; ".join(judged["reasons"])


def test_figures_are_of_the_trials_at_the_rate():
    trials = [made(60.0, True), made(90.0, False), made(60.0, True)]
    figures = server.summarise(RULE, 100.0, 60.0, trials)
    assert figures["latency_ms"]["p99"] == 10.0 and figures["batches"] == 2000
    assert [trial["late"] for trial in figures["trials"]] == [0, 1000, 0]
    assert [trial["holds"] for trial in figures["trials"]] == [True, False, True]
    assert {trial["mean_batch"] for trial in figures["trials"]} == {1.0}


def test_times_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "times.tsv"
    trials = [
        Trial(0.1 + 0.2, 2, np.array([0.1, 0.7]), np.array([0.3, 0.9]), np.array([1, 1])),
        Trial(7.0, 9, np.array([1e-9]), np.array([0.3]), np.array([1])),
    ]
    assert arrivals.write(path, trials) == files.sha256(path)
    for found, given in zip(arrivals.read(path), trials):
        assert found[:2] == given[:2] and all(map(np.array_equal, found[2:], given[2:]))
    text = path.read_text()
    for wrong in (
        "", text.splitlines()[0], text.replace("0.9", "nan"), text.replace("0.9", "x"),
        text.replace("0.9", "-1"), text.replace("\t2\t", "\t1e9\t"), text + "1\t2\n",
        text + "5\t1.0\t9\t1.0\t2.0\t1\n", text + "0\t1.0\t9\t1.0\t2.0\t1\n",
        text.replace("done", "did"),
    ):  # fmt: skip
        path.write_text(wrong)
        with pytest.raises(UserError, match="not a table of arrivals"):
            arrivals.read(path)
