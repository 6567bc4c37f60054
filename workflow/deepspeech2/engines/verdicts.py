"""What a measurement is worth: VALID, QUICK, INVALID or FAKE, and why."""

from __future__ import annotations

from typing import NamedTuple

# What a row needs to be VALID; with less it is QUICK.
WARMUP_BATCHES = 5
MIN_BATCHES = 10
MIN_SECONDS = 10.0
SAMPLE = 1000  # utterances that are timed of a larger set
MAX_SPREAD = 0.2  # coefficient of variation of the time per frame
MAX_OTHER_LOAD = 0.1  # share of the cores that other programs use meanwhile
MAX_THROTTLED = 0.01  # share of the timed seconds in which a quota stopped us
BOUNDED = (90, 99)  # percentiles of latency that come with an interval
GOVERNORS = ("performance",)  # of the CPU's frequency, where it can be read


class Settings(NamedTuple):
    """Settings of a measurement; `multi` replaces the minima when it is set."""

    warmup_batches: int
    min_batches: int
    min_seconds: float
    multi: int | None
    max_spread: float
    max_other_load: float
    governors: list[str] | None
    sample: int = SAMPLE


class Conditions(NamedTuple):
    """What the machine was like: shares of the cores used by others, its governor, and for how many
    seconds control groups stopped us meanwhile.
    """

    load_before: float
    other_load: float
    governor: str | None
    throttled_seconds: float = 0.0


def verdict(
    figures: dict, settings: Settings, conditions: Conditions, fake: bool, wrong: str = ""
) -> dict[str, object]:
    """VALID, QUICK (settings below the rules' minima), INVALID or FAKE, with the reasons.

    `disturbed` are those of the reasons that no setting asked for. `wrong` says what is wrong with
    the outputs, if something is: no setting makes that a measurement.
    """
    if fake:
        return {"verdict": "FAKE", "reasons": ["a fake device computed this"], "disturbed": []}
    disturbed, short = [wrong] if wrong else [], []
    if figures["spread"] > settings.max_spread:
        disturbed.append(f"spread {figures['spread']:.0%} above {settings.max_spread:.0%}")
    for name, load in (
        ("other load", conditions.other_load),
        ("load before the run", conditions.load_before),
    ):
        if load > settings.max_other_load:
            disturbed.append(f"{name} {load:.0%} above {settings.max_other_load:.0%}")
    if conditions.throttled_seconds > MAX_THROTTLED * figures["seconds"]:
        disturbed.append(
            f"throttled for {conditions.throttled_seconds:.1f} s by a quota of CPU time"
        )
    if settings.governors and conditions.governor:
        others = set(conditions.governor.split(", ")) - set(settings.governors)
        if others:
            disturbed.append(
                f"frequency governor {', '.join(sorted(others))}, not "
                f"{' or '.join(settings.governors)}"
            )
    if settings.warmup_batches < WARMUP_BATCHES:
        short.append(f"{settings.warmup_batches} of {WARMUP_BATCHES} warm-up batches")
    if figures["batches"] < MIN_BATCHES:
        short.append(f"{figures['batches']} of {MIN_BATCHES} batches")
    if figures["seconds"] < MIN_SECONDS:
        short.append(f"{figures['seconds']:.1f} of {MIN_SECONDS:.0f} s")
    reduced = not settings.multi and (
        settings.warmup_batches < WARMUP_BATCHES
        or settings.min_batches < MIN_BATCHES
        or settings.min_seconds < MIN_SECONDS
    )
    if settings.sample < SAMPLE:
        short.append(f"a sample of {settings.sample} of {SAMPLE} utterances")
        reduced = not settings.multi
    # Wider gates than the rules' must not make a row valid. (Which governors will do is not such a
    # gate: it depends on the machine, and the table names the one that was found.)
    reduced |= settings.max_spread > MAX_SPREAD or settings.max_other_load > MAX_OTHER_LOAD
    judged = "QUICK" if reduced and not wrong else "INVALID" if short or disturbed else "VALID"
    return {"verdict": judged, "reasons": short + disturbed, "disturbed": disturbed}
