"""The proof: how much faster than the reference and the guide, and how near to the machine's limit.

    make bench [ARCHIVE=an4_raw.bigendian.tar.gz]

measures AN4 test from `.bin` files (in the page cache) to transcripts, loading, assembling and
decoding included, loading and compiling of models not. Rows of a model:

    reference  deepspeech.pytorch's way (reference.py): eager float32, packed, batches of 20
    guide      the guide's: the packed form's trace, padded to the longest of the set, float32
    ours       engines of config.yaml, each at its best batch size, which a calibration finds
    limit      the fastest matrix product of this machine, in utterances per second

Rounds alternate over all rows, and ratios are formed within a round, so that what drifts cancels
out; median, least and largest of the rounds are shown and written to results/bench.tsv.
`share_of_peak` is useful operations (limit.operations) per second by the product's of the same
precision. Transcripts are compared with those of the stage `eager`; the worst round counts.

--growth ENGINE shows time and memory for 10 and 100 times as many utterances, --profile ENGINE
where the time goes. --device cuda is written, and was never run: there was no GPU.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow"))

import limit
import reference
import torch
import yaml
from deepspeech2 import backends, machine, stage
from deepspeech2.architecture import Architecture
from deepspeech2.config import complete
from deepspeech2.decode import greedy_batch
from deepspeech2.features import FeatureSet, Padding, assemble, widths
from deepspeech2.files import read_json, replacing
from deepspeech2.posteriors import outputs
from deepspeech2.score import rates, read_transcripts
from deepspeech2.stage import UserError

BATCH_SIZES = {"cpu": [1, 8, 16, 32, 64], "cuda": [1, 8, 32, 128, 256, 512]}
CUDA_COPIES = 8  # of the set, to fill batches of 512
GROWTH = (1, 10, 100)  # times the set
SPREAD = ("utterances_per_s", "ratio_to_reference", "ratio_to_guide", "share_of_peak")
COLUMNS = [
    *("model", "row", "engine", "batch_size", *SPREAD, "wer", "identical_transcripts"),
    *(f"{name}_{end}" for name in SPREAD for end in ("min", "max")),
]
# What is to be reached: utterances/s of the full size (the guide's best on its NPU), the best
# engine that keeps the transcripts against the reference and the guide at batch 16, and bfloat16.
FULL_SIZE, PUBLISHED = "full_random", 18.76
TO_REFERENCE, TO_GUIDE = 8, 12
BF16_TO_REFERENCE, BF16_SHARE = 4.5, 0.75
MORE_ERRORS = 1  # words more wrong than float32's that still keep the transcripts


class Row(NamedTuple):
    """What is measured: `transcribe` turns a set of features into texts, in the set's order."""

    row: str
    engine: str
    batch_size: int
    precision: str
    transcribe: Callable[[FeatureSet], list[str]]


class Part(FeatureSet):
    """Some utterances of another set, by position; one may come several times.

    They share the other set's files, so that a set of 13,000 needs no more space than one of 130.
    """

    def __init__(self, features: FeatureSet, positions: Sequence[int]):
        self.features, self.positions = features, positions
        self.bins, self.frames_max = features.bins, features.frames_max
        self.utterances = [features.utterances[position] for position in positions]

    def load(self, position: int):
        return self.features.load(self.positions[position])


def repeated(features: FeatureSet, copies: int) -> FeatureSet:
    """Every utterance so many times, still longest first."""
    return Part(features, [p for p in range(len(features)) for _ in range(copies)])


class Model:
    """A model's files in the results, with the features that it takes."""

    def __init__(self, results: Path, dataset: str, name: str, random: bool):
        self.name, self.random = name, random
        self.folder, place = results / "models" / name, results / dataset / name
        for needed in (self.folder / "model.json", place / "eager" / "transcripts.jsonl"):
            if not needed.exists():
                command = "`make bench-inputs [ARCHIVE=PATH]`"
                raise UserError(f"{needed}: not there; it is made by {command}")
        description = read_json(self.folder / "model.json")
        self.labels: list[str] = description["labels"]
        self.architecture = Architecture(**description["architecture"])
        self.features = FeatureSet(place / "features", place / "features.json")
        self.features.verify()  # reads all files: they are in the page cache now
        self.eager = read_transcripts(place / "eager" / "transcripts.jsonl")

    def operations_each(self) -> float:
        """Useful operations per utterance, on average."""
        frames = [utterance["frames"] for utterance in self.features.utterances]
        return limit.operations(self.architecture, frames) / len(frames)

    def errors(self, texts: list[str]) -> tuple[int, float, int]:
        """Wrong words, WER in percent, and transcripts identical with the eager ones."""
        found = [
            {"reference": utterance["reference"], "hypothesis": text}
            for utterance, text in zip(self.features.utterances, texts)
        ]
        wer = rates(found, intervals=False)["wer"]
        eager = [self.eager[u["id"]]["hypothesis"] for u in self.features.utterances]
        wrong = sum(wer[kind] for kind in ("substitutions", "deletions", "insertions"))
        return wrong, wer["percent"], sum(map(str.__eq__, eager, texts))


@contextmanager
def opened(
    model: Model, engine: backends.Engine, batch_size: int, threads: int
) -> Iterator[backends.Session]:
    """A session of an engine, compiled in a temporary folder."""
    backend = backends.create(engine)
    backend.prepare()
    name = "model.safetensors" if backend.source == "weights" else f"torchscript_{engine.form}.pt"
    features = model.features
    found = widths(features, batch_size, engine.buckets or engine.padding)
    shapes = [backends.Shape(batch_size, features.bins, frames) for frames in found]
    with tempfile.TemporaryDirectory() as folder:
        backend.compile(model.folder / name, shapes, Path(folder))
        session = backend.open(Path(folder), threads)
        try:
            yield session
        finally:
            session.close()


def transcriber(
    session: backends.Session, batch_size: int, padding: Padding, labels: list[str]
) -> Callable[[FeatureSet], list[str]]:
    """Our pipeline: batches are assembled ahead, decoded whole, and a device computes meanwhile."""

    def transcribe(features: FeatureSet) -> list[str]:
        texts: list[str] = []
        for positions, probabilities, lengths in outputs(session, features, batch_size, padding):
            count = len(positions)
            texts += greedy_batch(probabilities[:count], lengths[:count], labels)
        return texts

    return transcribe


def timed(row: Row, features: FeatureSet) -> tuple[float, list[str]]:
    """Seconds of a whole pass after one warm-up batch, and its texts."""
    row.transcribe(Part(features, range(min(row.batch_size, len(features)))))
    start = time.perf_counter()
    texts = row.transcribe(features)
    return time.perf_counter() - start, texts


def sample(features: FeatureSet, batch_size: int) -> FeatureSet:
    """Some whole batches, evenly from the longest to the shortest."""
    starts = range(0, len(features), batch_size)
    starts = starts[:: max(1, len(starts) // max(4, 32 // batch_size))]
    ends = (min(start + batch_size, len(features)) for start in starts)
    return Part(features, [p for start, end in zip(starts, ends) for p in range(start, end)])


def row_of(model: Model, name: str, engine: backends.Engine, batch_size: int, session) -> Row:
    """The row of one of our engines."""
    padding = engine.buckets or engine.padding
    transcribe = transcriber(session, batch_size, padding, model.labels)
    return Row("ours", name, batch_size, engine.precision, transcribe)


def calibrate(model: Model, features: FeatureSet, name: str, engine, args) -> int:
    """The batch size at which an engine computes most useful frames per second."""
    pace = {}
    for batch_size in args.batch_sizes:
        with opened(model, engine, batch_size, args.threads) as session:
            part = sample(features, batch_size)
            seconds, _ = timed(row_of(model, name, engine, batch_size, session), part)
        pace[batch_size] = sum(u["frames"] for u in part.utterances) / seconds
    best = max(pace, key=pace.__getitem__)
    shown = ", ".join(f"{size}: {frames:.0f}" for size, frames in pace.items())
    say(f"{model.name}, {name}: frames/s by batch size {shown}")
    return best


def yardsticks(model: Model, device: str) -> Iterator[Row]:
    """The rows of the reference and, on the CPU, of the guide."""
    network = reference.load(model.folder / "model.safetensors", model.architecture, device)
    labels, size = model.labels, reference.BATCH_SIZE
    yield Row(
        *("reference", "eager", size, "fp32"),
        lambda features: reference.transcribe(network, features, labels, size, device=device),
    )
    if device != "cpu":
        return
    trace, width = (
        reference.guide(model.folder / "torchscript_packed.pt"),
        model.features.frames_max,
    )
    for size in reference.GUIDE_BATCH_SIZES:
        yield Row(
            *("guide", "trace", size, "fp32"),
            lambda features, size=size: reference.transcribe(trace, features, labels, size, width),
        )


def measure(model: Model, engines: dict[str, backends.Engine], args) -> list[dict]:
    """The table's rows of one model: dicts by COLUMNS, and `wrong` (words) and `precision`."""
    copies = CUDA_COPIES if args.device == "cuda" else 1
    features = repeated(model.features, copies) if copies > 1 else model.features
    best = {n: calibrate(model, features, n, engine, args) for n, engine in engines.items()}
    with ExitStack() as stack:
        rows = list(yardsticks(model, args.device))
        for name, engine in engines.items():
            session = stack.enter_context(opened(model, engine, best[name], args.threads))
            rows.append(row_of(model, name, engine, best[name], session))
        precisions = limit.KERNELS_OF[args.device]
        laps: list[list[float]] = []  # utterances/s by round and row; peaks by round and precision
        peaks: list[dict[str, float]] = []
        judged: list[list[tuple]] = []
        for number in range(args.rounds):
            peaks.append({name: limit.peak(args.device, name) for name in precisions})
            passes = [timed(row, features) for row in rows]
            laps.append([len(features) / seconds for seconds, _ in passes])
            judged.append([model.errors(texts[::copies]) for _, texts in passes])
            say(f"{model.name}, round {number + 1} of {args.rounds}: " + " ".join(
                f"{row.engine}@{row.batch_size} {lap:.2f}" for row, lap in zip(rows, laps[-1])
            ))  # fmt: skip
    each = model.operations_each()
    for precision in precisions:
        rows.append(Row("limit", f"gemm-{precision}", 0, precision, None))
        for lap, peak in zip(laps, peaks):
            lap.append(peak[precision] / each)
    guide = next((i for i, r in enumerate(rows) if r.row == "guide" and r.batch_size == 16), None)
    table = []
    for i, row in enumerate(rows):
        rounds = {
            "utterances_per_s": [lap[i] for lap in laps],
            "ratio_to_reference": [lap[i] / lap[0] for lap in laps],
            "ratio_to_guide": [] if guide is None else [lap[i] / lap[guide] for lap in laps],
            "share_of_peak": [
                lap[i] * each / peak[row.precision]
                for lap, peak in zip(laps, peaks)
                if row.precision in peak
            ],
        }
        line = {"model": model.name, **{key: getattr(row, key) for key in Row._fields[:4]}}
        for name, values in rounds.items():
            if values:
                line[name] = statistics.median(values)
                line[f"{name}_min"], line[f"{name}_max"] = min(values), max(values)
        if row.row != "limit":
            line["wrong"], line["wer"], _ = max(lap[i] for lap in judged)
            line["identical_transcripts"] = min(lap[i][2] for lap in judged)
        if model.random:
            line.pop("wer", None)
        table.append(line)
    return table


def write(path: Path, table: list[dict]) -> None:
    """The table as TSV, four significant digits, WER with three decimals."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([shown(line, column) for column in COLUMNS] for line in table)


def shown(line: dict, column: str) -> str:
    """A cell as text; empty where there is nothing to say."""
    value = line.get(column, "")
    if isinstance(value, float):
        return f"{value:.3f}" if column == "wer" else f"{value:.4g}"
    return "" if column == "batch_size" and not value else str(value)


def show(table: list[dict]) -> None:
    """The table for the eye: medians with least and largest behind."""
    columns = COLUMNS[: -2 * len(SPREAD)]
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for line in table:
        cells = []
        for column in columns:
            cell = shown(line, column)
            if column in SPREAD and cell:
                low, high = (shown(line, f"{column}_{end}") for end in ("min", "max"))
                cell += f" ({low} to {high})" if low != high else ""
            cells.append(cell)
        print("| " + " | ".join(cells) + " |")


def goals(table: list[dict], float32_errors: dict[str, int]) -> list[str]:
    """Whether what was to be reached was, one line each.

    Engines keep the transcripts if they have at most MORE_ERRORS words more wrong than the eager
    float32 network, in every model whose words mean anything (`float32_errors`).
    """
    ours = [line for line in table if line["row"] == "ours"]
    lost = {
        line["engine"]
        for line in ours
        if line["model"] in float32_errors
        and line["wrong"] > float32_errors[line["model"]] + MORE_ERRORS
    }
    lines = []

    def goal(line: dict, what: str, column: str, least: float) -> None:
        if column in line:
            verdict = "met" if line[column] >= least else "NOT met"
            name = f"{line['model']}, {line['engine']} at batch {line['batch_size']}"
            lines.append(f"{verdict}: {name}: {what} {line[column]:.4g}, to be {least:g}")

    for model in dict.fromkeys(line["model"] for line in table):
        of_model = [line for line in ours if line["model"] == model]
        keeping = [line for line in of_model if line["engine"] not in lost]
        bf16 = [line for line in keeping if line["precision"] == "bf16"]
        if keeping:
            best = max(keeping, key=lambda line: line["utterances_per_s"])
            goal(best, "times the reference", "ratio_to_reference", TO_REFERENCE)
            goal(best, "times the guide at batch 16", "ratio_to_guide", TO_GUIDE)
            if model == FULL_SIZE:
                goal(best, "utterances/s", "utterances_per_s", PUBLISHED)
        if bf16 and model == FULL_SIZE:
            best = max(bf16, key=lambda line: line["utterances_per_s"])
            goal(best, "times the reference", "ratio_to_reference", BF16_TO_REFERENCE)
            goal(best, "of the peak", "share_of_peak", BF16_SHARE)
    lines += [f"left out: {name} does not keep the transcripts" for name in sorted(lost)]
    return lines


def growth(model: Model, name: str, engine: backends.Engine, args) -> None:
    """Seconds per utterance and peak memory of this process, at growing numbers of utterances."""
    size = calibrate(model, model.features, name, engine, args)
    print("| utterances | seconds | ms per utterance | peak MiB |\n|---|---|---|---|")
    found = []
    with opened(model, engine, size, args.threads) as session:
        row = row_of(model, name, engine, size, session)
        for copies in GROWTH:
            features = repeated(model.features, copies)
            seconds, _ = timed(row, features)
            memory = machine.peak_memory_bytes() / 2**20
            found.append((seconds / len(features), memory))
            print(f"| {len(features)} | {seconds:.2f} | {1000 * found[-1][0]:.3f} | {memory:.0f} |")
    pace, memory = (found[-1][i] / found[0][i] for i in (0, 1))
    print(f"{GROWTH[-1]} times as many: {pace:.3f} times the time of each, {memory:.3f} the memory")


def profile(model: Model, name: str, engine: backends.Engine, args) -> None:
    """Where the time of a pass goes, step by step, and beside it the pass as it is, overlapped."""
    features, padding = model.features, engine.buckets or engine.padding
    size, clock = calibrate(model, features, name, engine, args), time.perf_counter
    with opened(model, engine, size, args.threads) as session:
        row = row_of(model, name, engine, size, session)
        whole, _ = timed(row, features)
        session.profile()
        parts = dict.fromkeys(("assemble", "upload", "forward", "download", "decode"), 0.0)
        for start in range(0, len(features), size):
            times = [clock()]
            batch = assemble(features, start, size, padding)
            times.append(clock())
            on_device = session.upload(batch.spectrograms, batch.lengths)
            times.append(clock())
            result = session.forward(on_device)
            session.synchronize()
            times.append(clock())
            probabilities, lengths = session.download(result)
            times.append(clock())
            greedy_batch(probabilities, lengths, model.labels)
            times.append(clock())
            for part, before, after in zip(parts, times, times[1:]):
                parts[part] += after - before
        inside = session.profile()
    total = sum(parts.values())
    print(f"{model.name}, {name} at batch {size}: {total:.3f} s, overlapped {whole:.3f} s")
    print("| part | seconds | share |\n|---|---|---|")
    for part, seconds in [*parts.items(), *((f"in it: {k}", v) for k, v in inside.items())]:
        print(f"| {part} | {seconds:.4f} | {seconds / total:.1%} |")


def say(text: str) -> None:
    """A note on the way, beside the table."""
    print(text, file=sys.stderr, flush=True)


def runnable(config: dict, names: list[str] | None, device: str) -> dict[str, backends.Engine]:
    """The named engines, or else those of the device that can run in this interpreter."""
    entries = config["engines"]
    for name in names or []:
        if name not in entries:
            known = ", ".join(entries)
            raise UserError(f"engine {name!r} is not defined; defined are: {known}")
    found = {}
    for name in names or entries:
        entry = entries[name]
        if not names and (entry["python"] or not str(entry["device"]).startswith(device)):
            continue
        try:
            engine = backends.Engine(**{key: entry[key] for key in backends.Engine._fields})
            backends.create(engine).prepare()
        except UserError as error:
            if names:
                raise
            say(f"left out: {name}: {error}")
            continue
        found[name] = engine
    return found


def arguments(argv) -> argparse.Namespace:
    """The command line."""
    parser = stage.parser(__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--config", type=Path, default=ROOT / "config.yaml")
    parser.add_argument("--dataset", default="an4")
    parser.add_argument("--models", nargs="+", default=["embedded", FULL_SIZE])
    parser.add_argument("--engines", nargs="+", help="of config.yaml; all of the device that run")
    parser.add_argument("--batch-sizes", nargs="+", type=int, help="that the calibration tries")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=limit.KERNELS_OF, default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--growth", metavar="ENGINE")
    parser.add_argument("--profile", metavar="ENGINE")
    args = stage.parse(parser, argv)
    args.batch_sizes = args.batch_sizes or BATCH_SIZES[args.device]
    return args


def main(argv=None) -> None:
    """Command line: see `--help`."""
    args = arguments(argv)
    torch.set_num_threads(args.threads)
    config = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    complete(config, ROOT / "workflow" / "schemas" / "config.schema.yaml")
    only = args.growth or args.profile
    engines = runnable(config, [only] if only else args.engines, args.device)
    table: list[dict] = []
    errors = {}
    for name in args.models:
        random = bool(config["models"].get(name, {}).get("random"))
        model = Model(args.results, args.dataset, name, random)
        if only:
            (growth if args.growth else profile)(model, only, engines[only], args)
            continue
        table += measure(model, engines, args)
        if not random:
            hypotheses = [model.eager[u["id"]]["hypothesis"] for u in model.features.utterances]
            errors[name] = model.errors(hypotheses)[0]
    if table:
        write(args.results / "bench.tsv", table)
        show(table)
        print("\n".join(["", *goals(table, errors)]))


if __name__ == "__main__":
    stage.run(main)
