"""The reliability diagram: is a word with a confidence of 0.8 right in 80 % of cases?"""

from __future__ import annotations

from matplotlib.figure import Figure

from deepspeech2.report.rows import is_scored
from deepspeech2.report.style import COLOURS, PUBLISHED, SIZE

MARKERS = "osv^Dx"
LARGEST = 120  # of a dot, points²


def reliability(records: list[dict], places: list[int], published: dict) -> Figure:
    """Share of right words over their confidence, in ten bins; the more words, the larger the dot.
    On the line, words are right as often as their confidence says.
    """
    found: dict[str, dict] = {}
    for record in filter(is_scored, records):
        calibration = record["accuracy"].get("confidence")
        if calibration and calibration not in found.values():  # batch sizes mostly agree
            keys = ("dataset", "model", "engine", "decoder")
            name = " ".join(str(record[key]) for key in keys if key in record)
            found.setdefault(name, calibration)
    figure = Figure(figsize=(SIZE[0], SIZE[0]), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "--", color=PUBLISHED)
    for number, (name, calibration) in enumerate(found.items()):
        bins = [b for b in calibration["bins"] if b["words"]]
        x = [b["confidence"] for b in bins]
        y = [b["right"] / b["words"] for b in bins]
        largest = max(b["words"] for b in bins)
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axes.plot(x, y, color=colour, linewidth=0.8)
        axes.scatter(
            x, y, [max(8, LARGEST * b["words"] / largest) for b in bins], colour, marker=marker,
            alpha=0.7,
            label=f"{name}: calibration error {calibration['expected_calibration_error']:.3f}",
        )  # fmt: skip
    axes.set(xlabel="confidence", ylabel="share of right words", xlim=(0, 1.03), ylim=(0, 1.03))
    if found:
        figure.legend(loc="outside upper center", markerscale=0.6)
    return figure
