"""Draw the figures of the report: speed, latency, phases, accuracy and padding over batch size,
and engines side by side.

Each is an SVG file with its text as text, for papers; the report shows the same files. They show
the rows' records, and published figures beside ours.
"""

from __future__ import annotations

import itertools

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, NullFormatter

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, log
from deepspeech2.files import replacing
from deepspeech2.report import published as published_figures
from deepspeech2.report.reliability_figure import reliability
from deepspeech2.report.rows import (
    device_name,
    is_scored,
    node_kind,
    of_one_kind,
    of_speed,
    read_record,
)
from deepspeech2.report.style import COLOURS, PUBLISHED, SIZE, STYLE, save

MOST_ABOVE_EACH_OTHER = 3  # panels; more stand in two columns
MARKERS = "osv^Dx"  # of more engines than there are colours
PHASES = {"assemble": "o", "upload": "^", "forward": "s", "download": "v"}


class Series:
    """The rows of one dataset, model, engine and decoder, by batch size."""

    def __init__(self, name: str, number: int, records: list[dict]):
        self.name, self.colour = name, COLOURS[number % len(COLOURS)]
        self.marker = MARKERS[number // len(COLOURS) % len(MARKERS)]
        self.records = sorted(records, key=lambda r: r["batch_size"])
        self.dataset = records[0]["dataset"]

    def over(self, places: list[int], value) -> tuple[np.ndarray, np.ndarray]:
        """Places on the axis of batch sizes, and `value` of each record."""
        x = [places.index(r["batch_size"]) for r in self.records]
        return np.array(x), np.array([value(r) for r in self.records], float)


def series_of(records: list[dict]) -> list[Series]:
    """Series by dataset, model, engine and decoder, named by what tells them apart."""
    keys = ("dataset", "model", "engine", "decoder")
    varying = [k for k in keys if len({r[k] for r in records}) > 1] or ["engine"]
    alike = of_one_kind(map(node_kind, records), map(device_name, records))
    groups: dict[str, list[dict]] = {}
    for found in records:
        place = () if alike else (f"on {node_kind(found)}", device_name(found))
        name = " ".join(filter(None, [*(found[key] for key in varying), *place]))
        groups.setdefault(name, []).append(found)
    return [Series(name, number, rows) for number, (name, rows) in enumerate(groups.items())]


def start(places: list[int], what: str, panels: int = 1):
    """A figure with axes over batch size; places on the axis are even, whatever the sizes."""
    columns = 1 if panels <= MOST_ABOVE_EACH_OTHER else 2
    rows = -(-panels // columns)
    figure = Figure(figsize=(SIZE[0], SIZE[1] * (0.4 + 0.6 * rows)), layout="constrained")
    all_axes = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    for number, axes in enumerate(all_axes):
        axes.set_xticks(range(len(places)), [str(size) for size in places])
        axes.set_xlim(-0.5, len(places) - 0.5)
        if number % columns == 0:
            axes.set_ylabel(what)
        if number >= len(all_axes) - columns:
            axes.set_xlabel("batch size")
    for axes in all_axes[panels:]:
        axes.set_axis_off()
    return figure, all_axes[:panels]


def legend(figure: Figure, axes, handles=None) -> None:
    """A legend above the axes, where it covers no data."""
    handles = handles or axes.get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)


def logarithmic(axes, name: str = "y") -> None:
    """A logarithmic axis that is labelled 0.1, 1, 10, ..."""
    axes.set(**{f"{name}scale": "log"})
    axis = getattr(axes, f"{name}axis")
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _rate(records, places, key: str, what: str, published=()) -> Figure:
    figure, (axes,) = start(places, what)
    for one in series_of(records):
        x, y = one.over(places, lambda r: r["offline"][key])
        _, spread = one.over(places, lambda r: r["offline"]["spread"])
        axes.errorbar(
            x, y, y * spread, color=one.colour, marker=one.marker, capsize=3, label=one.name
        )
    for (name, column), line in zip(published, itertools.cycle(("--", ":", "-."))):
        x = [place for place, size in enumerate(places) if not np.isnan(column.get(size, np.nan))]
        y = [column[places[place]] for place in x]
        if x:
            axes.plot(x, y, line, color=PUBLISHED, marker="x", label=f"published {name}")
    axes.set_ylim(bottom=0)
    legend(figure, axes)
    return figure


def _published(published: dict, scale: dict) -> list[tuple[str, dict[int, float]]]:
    """Published throughput of each dataset by batch size, times the dataset's `scale`."""
    return [
        (
            f"{engine}, {name}" if len(published) > 1 else engine,
            {size: row[key] * scale[name] for size, row in table.items() if key in row},
        )
        for name, table in published.items()
        for engine, key in (
            ("torch_aie", "published_utterances_per_s"),
            ("ACL", "published_acl_utterances_per_s"),
        )
    ]


def throughput(records: list[dict], places: list[int], published: dict) -> Figure:
    """Utterances per second; bars are the spread of the batches."""
    columns = _published(published, dict.fromkeys(published, 1))
    return _rate(records, places, "utterances_per_s", "utterances/s", columns)


def rtfx(records: list[dict], places: list[int], published: dict) -> Figure:
    """Seconds of audio per second; the published ones follow from the utterances' mean length."""
    seconds = {
        r["dataset"]: r["offline"]["rtfx"] / r["offline"]["utterances_per_s"] for r in records
    }
    columns = _published(published, seconds)
    return _rate(records, places, "rtfx", "RTFx (s of audio per s)", columns)


def latency(records: list[dict], places: list[int], published: dict) -> Figure:
    """Distribution of the batches' forward times, and of single utterances, end to end."""
    names = [*map(str, places), "single"]
    figure, (axes,) = start(places, "latency, ms")
    everything = series_of(records)
    width = 0.8 / len(everything)
    for number, one in enumerate(everything):
        data = [r["offline"]["batch_ms"] for r in one.records]
        data.append(one.records[0]["single_stream"]["end_to_end_batch_ms"])
        x = [*one.over(places, lambda r: 0)[0], len(places)]
        shift = (number - (len(everything) - 1) / 2) * width
        colour = {"color": one.colour}
        axes.boxplot(
            data, positions=np.array(x) + shift, widths=width * 0.8, whis=(5, 95),
            boxprops=colour, whiskerprops=colour, capprops=colour, medianprops=colour,
            flierprops={"marker": ".", "markersize": 2, "markeredgecolor": one.colour},
        )  # fmt: skip
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)
    logarithmic(axes)
    if len(everything) > 1:
        handles = [Line2D([], [], color=s.colour, label=s.name) for s in everything]
        legend(figure, axes, handles)
    return figure


def phases(records: list[dict], places: list[int], published: dict) -> Figure:
    """Time of each phase per utterance, one panel for each engine."""
    everything = series_of(records)
    figure, all_axes = start(places, "ms per utterance", len(everything))
    for axes, one in zip(all_axes, everything):
        for colour, (phase, marker) in zip(COLOURS, PHASES.items()):
            x, y = one.over(
                places,
                lambda r, phase=phase: (
                    1000 * r["offline"]["phase_seconds"][phase] / r["offline"]["utterances"]
                ),
            )
            shown = y > 0  # the axis is logarithmic
            axes.plot(x[shown], y[shown], color=colour, marker=marker, label=phase)
        logarithmic(axes)
        axes.set_title(one.name, fontsize=9)
    legend(figure, all_axes[0])
    return figure


def wer(records: list[dict], places: list[int], published: dict) -> Figure:
    """WER with its 95 % interval per engine and batch size."""
    figure, (axes,) = start(places, "WER, %")
    everything = series_of([r for r in records if is_scored(r)])
    for number, one in enumerate(everything):
        x, y = one.over(places, lambda r: r["accuracy"]["wer"]["percent"])
        low, high = (
            one.over(places, lambda r, k=k: r["accuracy"]["wer"][k])[1] for k in ("low", "high")
        )
        shift = (number - (len(everything) - 1) / 2) * 0.6 / len(everything)
        bars = np.maximum(0, [y - low, high - y])
        axes.errorbar(
            x + shift, y, bars, fmt=one.marker, color=one.colour, capsize=3, label=one.name
        )
    for name, table in published.items():
        known = {s: r.get("published_wer", np.nan) for s, r in table.items() if s in places}
        known = {size: value for size, value in known.items() if not np.isnan(value)}
        if known:
            x = [places.index(size) for size in known]
            axes.plot(x, list(known.values()), "x", color=PUBLISHED, label=f"published, {name}")
    axes.set_ylim(bottom=0)
    legend(figure, axes)
    return figure


def invariance(records: list[dict], places: list[int], published: dict) -> Figure:
    """WER in percent at each batch size, and how many transcripts equal those of the plain float32
    network, one utterance at a time. Where all do, export and batching changed nothing.
    """
    everything = series_of(records)
    size = (max(SIZE[0], 1.5 + 0.62 * len(places)), 0.9 + 0.36 * len(everything))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    for row, one in enumerate(everything):
        for found in one.records:
            agreed, of = (found["agreement"][k] for k in ("identical_transcripts", "utterances"))
            colour = COLOURS[0] if agreed == of else COLOURS[1]
            x = places.index(found["batch_size"])
            tile = Rectangle((x - 0.48, row - 0.45), 0.96, 0.9, facecolor=colour, alpha=0.25)
            axes.add_patch(tile)
            wer = found["accuracy"]["wer"]["percent"] if is_scored(found) else None
            rate = "" if wer is None else f"{wer:.2f}\n"
            axes.text(x, row, f"{rate}{agreed}/{of}", ha="center", va="center", fontsize=7)
    axes.set_xticks(range(len(places)), [str(place) for place in places])
    axes.set_yticks(range(len(everything)), [one.name for one in everything])
    axes.set(xlim=(-0.5, len(places) - 0.5), ylim=(len(everything) - 0.5, -0.5))
    axes.set_xlabel("batch size")
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    tiles = [("all as the plain network's", 0), ("some differ", 1)]
    handles = [Rectangle((0, 0), 1, 1, facecolor=COLOURS[n], alpha=0.25, label=text)
               for text, n in tiles]  # fmt: skip
    legend(figure, axes, handles)
    return figure


def padding(records: list[dict], places: list[int], published: dict) -> Figure:
    """Share of the input that is padding or fill-up, for both kinds of padding."""
    figure, (axes,) = start(places, "padding, % of the input")
    seen: dict[str, list[dict]] = {}
    for found in records:
        seen.setdefault(found["dataset"], []).append(found)
    for number, (dataset, rows) in enumerate(seen.items()):
        one = Series(dataset, number, list({r["batch_size"]: r for r in rows}.values()))
        for kind, line in (("longest", "o-"), ("batch", "s--")):
            x, y = one.over(places, lambda r, k=kind: 100 * r["offline"]["padding_shares"][k])
            name = f"to the longest of the {'set' if kind == 'longest' else 'batch'}"
            label = f"{dataset}: {name}" if len(seen) > 1 else name
            axes.plot(x, y, line, color=one.colour, label=label)
    axes.set_ylim(0, 100)
    legend(figure, axes)
    return figure


def pareto(records: list[dict], places: list[int], published: dict) -> Figure:
    """WER with its 95 % interval against utterances per second, of each engine at its fastest batch
    size. Rings mark those than which none is both faster and no less accurate.
    """
    sets: dict[tuple, list[Series]] = {}
    for one in series_of([r for r in records if is_scored(r)]):
        sets.setdefault((one.dataset, one.records[0]["model"]), []).append(one)
    figure = Figure(figsize=(SIZE[0], SIZE[1] * max(1, len(sets))), layout="constrained")
    all_axes = figure.subplots(max(1, len(sets)), 1, squeeze=False)[:, 0]
    for axes, (name, everything) in zip(all_axes, sets.items()):
        points = []
        for one in everything:
            best = max(one.records, key=lambda r: r["offline"]["utterances_per_s"])
            x, rate = best["offline"]["utterances_per_s"], best["accuracy"]["wer"]
            y = rate["percent"]
            points.append((x, y))
            axes.errorbar(
                [x], [y], [[max(0, y - rate["low"])], [max(0, rate["high"] - y)]], color=one.colour,
                fmt=one.marker, capsize=2, elinewidth=0.8, markersize=5,
                label=f"{one.name}, batch size {best['batch_size']}",
            )  # fmt: skip
        axes.plot(
            *zip(*front(points)), "o:", color=PUBLISHED, markersize=11, markerfacecolor="none"
        )
        axes.set(xlabel="utterances/s", ylabel="WER, %", xlim=(0, None), ylim=(0, None))
        if len(sets) > 1:
            axes.set_title(" ".join(name), fontsize=9)
    if sets:
        handles = [h for axes in all_axes for h in axes.get_legend_handles_labels()[0]]
        legend(figure, all_axes[0], handles)
    return figure


def noise(records: list[dict], places: list[int], published: dict) -> Figure:
    """WER with its 95 % interval against the level of the speech above the noise, of each engine at
    its largest batch size. On the right is the same corpus without noise.
    """
    sets: dict[tuple, list[dict]] = {}
    for found in records:
        if is_scored(found) and source_of(found):
            sets.setdefault((*source_of(found), found["model"]), []).append(found)
    sets = {k: part for k, part in sets.items() if any(snr_of(r) is not None for r in part)}
    figure = Figure(figsize=(SIZE[0], SIZE[1] * max(1, len(sets))), layout="constrained")
    all_axes = figure.subplots(max(1, len(sets)), 1, squeeze=False)[:, 0]
    for axes, part in zip(all_axes, sets.values()):
        levels = sorted({level for r in part if (level := snr_of(r)) is not None})
        names = [*(f"{level:g}" for level in levels), "none"]
        groups: dict[tuple, list[dict]] = {}
        for found in part:
            groups.setdefault((found["engine"], found["decoder"]), []).append(found)
        plain = all(decoder == "greedy" for _, decoder in groups)
        for number, ((engine, decoder), rows) in enumerate(groups.items()):
            largest = max(r["batch_size"] for r in rows)
            rows = [r for r in rows if r["batch_size"] == largest]
            rows.sort(key=lambda r: (snr_of(r) is None, snr_of(r) or 0))
            at = [names.index("none" if snr_of(r) is None else f"{snr_of(r):g}") for r in rows]
            rates = [r["accuracy"]["wer"] for r in rows]
            middle, low, high = (
                np.array([rate[k] for rate in rates], float) for k in ("percent", "low", "high")
            )
            bars = np.maximum(0, [middle - low, high - middle])
            one = Series(engine if plain else f"{engine}, {decoder}", number, rows)
            shift = (number - (len(groups) - 1) / 2) * 0.08
            axes.errorbar(
                np.array(at) + shift, middle, bars, fmt=f"{one.marker}-", color=one.colour,
                capsize=3, label=one.name,
            )  # fmt: skip
        axes.set_xticks(range(len(names)), names)
        axes.set(xlabel="speech above noise, dB", ylabel="WER, %", ylim=(0, None))
    if sets:
        legend(figure, all_axes[0])
    return figure


def source_of(record: dict) -> tuple | None:
    """The recordings of a row, and all that was done to them but noise."""
    found = record["configuration"].get("dataset")
    if not isinstance(found, dict):
        return None
    worse = {
        "reverberation": None,
        "speed": 1.0,
        "telephone": False,
        **(found.get("perturb") or {}),
    }
    same = (worse[key] for key in ("reverberation", "speed", "telephone"))
    place = [str(found.get(key)) for key in ("layout", "path", "urls", "within", "split")]
    return (*place, *map(str, same))


def snr_of(record: dict) -> float | None:
    """Level of a row's speech above its noise, in dB; None without noise."""
    return (record["configuration"]["dataset"].get("perturb") or {}).get("snr")


def front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (speed, error) than which none is faster with no more errors, slowest first."""
    kept: list[tuple[float, float]] = []
    for speed, error in sorted(set(points), key=lambda point: (-point[0], point[1])):
        if not kept or error < kept[-1][1]:
            kept.append((speed, error))
    return kept[::-1]


def single(records: list[dict], places: list[int], published: dict) -> Figure:
    """One utterance at a time, from its features to its posteriors: the median, and a line to the
    90th percentile.
    """
    everything = series_of(records)[::-1]
    height = SIZE[1] * max(0.5, 0.12 * len(everything))
    figure = Figure(figsize=(SIZE[0], height), layout="constrained")
    axes, bounds = figure.subplots(), []
    for place, one in enumerate(everything):
        times = one.records[0]["single_stream"]["end_to_end_batch_ms"]
        low, high = np.percentile(times, (50, 90))
        bounds += [low, high]
        axes.plot([low, high], [place, place], color=one.colour, linewidth=2)
        axes.plot([low], [place], one.marker, color=one.colour)
    axes.set_yticks(range(len(everything)), [one.name for one in everything])
    axes.set(xlabel="ms", ylim=(-0.6, len(everything) - 0.4))
    if max(bounds) > 20 * min(bounds) > 0:  # over less it would have hardly a label
        logarithmic(axes, "x")
    else:
        axes.set_xlim(left=0)
    return figure


def server(records: list[dict], places: list[int], published: dict) -> Figure:
    """Latency from arrival to transcript against the rate at which utterances arrive, up to the
    highest rate that holds: the median, and dashed the percentile that is bounded. Crosses are
    rates that do not hold, the level line is the bound.
    """
    found = {(s.name, r["decoder"]): (s, r["server"]) for s in series_of(records)
             for r in s.records if "server" in r}  # fmt: skip
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    top = 1.2 * max((served["rule"]["latency_ms"] for _, served in found.values()), default=1)
    for one, served in found.values():
        at: dict[float, list[tuple]] = {}
        for trial in sorted(served["trials"], key=lambda trial: trial["rate"]):
            if trial["rate"] <= (served["utterances_per_s"] or 0):
                several = at.setdefault(trial["rate"], [])
                several.append((trial["latency_ms"]["p50"], trial["percentile_ms"]))
            elif trial["holds"] is False:
                axes.plot([trial["rate"]], [top], "x", color=one.colour, clip_on=False)
        # Of one trial, or of several with the same rate.
        means = np.array([np.mean(several, axis=0) for several in at.values()]).reshape(-1, 2)
        for y, line, label in zip(means.T, ("-", "--"), (one.name, None)):
            axes.plot(list(at), y, line, color=one.colour, marker=one.marker, label=label)
        axes.axhline(served["rule"]["latency_ms"], color=PUBLISHED, linewidth=0.8)
    axes.set(xlabel="utterances/s that arrive", ylabel="latency, ms", xlim=(0, None), ylim=(0, top))
    if found:
        legend(figure, axes)
    return figure


OF_ACCURACY = ("noise", "wer", "invariance", "pareto", "reliability")
DRAWN = (
    throughput, rtfx, wer, invariance, pareto, noise, latency, single, server, phases, padding,
    reliability,
)  # fmt: skip
FIGURES = {figure.__name__: figure for figure in DRAWN}


def draw(name: str, records: list[dict], published: dict) -> Figure:
    """A figure by its name in FIGURES. `published` is as `published.read` gives it."""
    places = sorted({r["batch_size"] for r in records})
    shown = {k: v for k, v in published.items() if k in {r["dataset"] for r in records}}
    if name not in OF_ACCURACY:
        records = of_speed(records)
    with matplotlib.rc_context(STYLE):
        return FIGURES[name](records, places, shown)


def main(
    records: list[Input],
    published: dict[str, Input],
    figures: list[Output],
) -> None:
    """Command line.

    records: the rows' records (JSON)
    published: tables of published figures, by dataset (TSV)
    figures: figures to write, throughput.svg, wer.svg and so on (SVG)
    """
    rows = [read_record(path) for path in records]
    known, _ = published_figures.read(published)
    for path in figures:
        figure = draw(path.stem, rows, known)
        with replacing(path) as temporary:
            save(figure, temporary)
    log.info("%d figures of %d rows", len(figures), len(rows))


if __name__ == "__main__":
    cli.run(main)
