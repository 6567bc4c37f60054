"""The reliability diagram: is a word with a confidence of 0.8 right in 80 % of cases?"""

from __future__ import annotations

from matplotlib.figure import Figure

from deepspeech2.report.rows import is_scored
from deepspeech2.report.style import COLOURS, PUBLISHED, SIZE

MARKERS = "osv^Dx"
BOUNDS = (-0.03, 1.03)
SMALLEST, LARGEST = 8, 120  # of a dot, in square points


def reliability(records: list[dict], places: list[int], published: dict) -> Figure:
    """Share of right words over their confidence, in ten bins; the more words, the larger the dot.
    On the line, words are right as often as their confidence says. Of each decoder, the first
    engine's.
    """
    keys = ("dataset", "model", "decoder")
    found: dict[tuple, dict] = {}
    for record in filter(is_scored, records):
        calibration = record["accuracy"].get("confidence")  # older versions have none
        if calibration:
            found.setdefault(tuple(str(record.get(key, "")) for key in keys), calibration)
    varying = [n for n in range(len(keys)) if len({name[n] for name in found}) > 1] or [2]
    figure = Figure(figsize=(SIZE[0], SIZE[0]), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "--", color=PUBLISHED)
    for number, (name, calibration) in enumerate(found.items()):
        bins = [b for b in calibration["bins"] if b["words"]]
        x = [b["confidence"] for b in bins]
        y = [b["right"] / b["words"] for b in bins]
        largest = max(b["words"] for b in bins)
        sizes = [max(SMALLEST, LARGEST * b["words"] / largest) for b in bins]
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        error = f"calibration error {100 * calibration['expected_calibration_error']:.1f} %"
        label = f"{' '.join(name[n] for n in varying)}: {error}".removeprefix(": ")
        axes.plot(x, y, color=colour, linewidth=0.8)
        axes.scatter(x, y, sizes, colour, marker=marker, alpha=0.7, label=label)
    axes.set(xlabel="confidence", ylabel="share of right words", xlim=BOUNDS, ylim=BOUNDS)
    if found:
        figure.legend(loc="outside upper center", markerscale=0.6)
    return figure
