"""The proof: how much faster than the reference and the guide, and how near to the machine's limit.

    make bench [ARCHIVE=an4_raw.bigendian.tar.gz]

measures AN4 test from `.bin` files (in the page cache) to transcripts, loading, assembling and
decoding included, loading and compiling of models not. Rows of a model:

    reference  deepspeech.pytorch's way (reference.py): eager float32, packed, batches of 20
    guide      the guide's: the packed form's trace, padded to the longest of the set, float32
    ours       engines of config.yaml, each at its best batch size, which a calibration finds
    limit      the fastest product of this machine, in utterances per second: of matrices, or of the
               engines' own instructions with all that they read in the first cache

Rounds alternate over all rows, and ratios are formed within a round, so that drift cancels out;
median, least and largest of the rounds are shown and written to results/bench.tsv.
`share_of_peak` is useful operations (limit.operations) per second by the product's of the same
precision. The instructions that this CPU can use stand above the table, each with its limit.
Transcripts are compared with those of the stage `eager`; the worst round counts. Under the table
stands one line per target, met or missed, and for each precision which engine is the fastest.

--growth ENGINE shows time and memory for 10 and 100 times as many utterances, --profile ENGINE
where the time goes. What a GPU made of it (--device cuda) is in resources/gpu.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow"))

import limit
import reference
import torch
import yaml
from deepspeech2 import cli, configure, engines, machine, node
from deepspeech2.cli import UserError
from deepspeech2.config import Config
from deepspeech2.engines.run import outputs
from deepspeech2.features.batches import Batches, FeatureSet
from deepspeech2.files import read_json, replacing
from deepspeech2.model.architecture import Architecture
from deepspeech2.report.columns import Column, as_text, for_readers, frame, to_markdown, to_tsv
from deepspeech2.scoring import transcripts
from deepspeech2.scoring.decoders.greedy import Decoder as Greedy
from deepspeech2.scoring.rates import rates

BATCH_SIZES = {"cpu": [1, 8, 16, 32, 64], "cuda": [1, 8, 32, 128, 256, 512]}
# Files of models that engines start from.
EXPORTS = {
    "weights": "model.safetensors",
    "torchscript": "torchscript_{form}.pt",
    "onnx": "onnx_{form}_opset{opset}.onnx",
}
CUDA_COPIES = 8  # of the set, to fill batches of 512
GROWTH = (1, 10, 100)  # times the set
# Figures that each round has, with their labels.
FIGURES = {
    "utterances_per_s": "utterances/s",
    "ratio_to_reference": "times the reference",
    "ratio_to_guide": "times the guide at 16",
    "share_of_peak": "share of peak",
}


def _figure(name: str) -> Column:
    """A column of a figure, with four significant digits."""
    return Column(name, lambda row: float(f"{row[name]:.4g}") if name in row else None)


COLUMNS = (
    Column("model", label="model"),
    Column("row", label="row"),
    Column("engine", label="engine"),
    Column("batch_size", label="batch size"),
    *map(_figure, FIGURES),
    *(
        Column(f"{name}_range", label=label, joins=f"{{{name}}} ({{{name}_min}} to {{{name}_max}})")
        for name, label in FIGURES.items()
    ),
    Column("wer", decimals=3, label="WER %"),
    Column("identical_transcripts", label="as eager"),
    *(_figure(f"{name}_{end}") for name in FIGURES for end in ("min", "max")),
)
# The targets: utterances/s of the full size (the guide's best on its NPU), the best engine that
# keeps the transcripts against the reference and the guide at batch size 16, and bfloat16.
FULL_SIZE, PUBLISHED = "full_random", 18.76
TO_GUIDE = 12
BF16_TO_REFERENCE = 4.5
# By the instructions that int8 is computed with: its ratio to the reference, and shares of the
# limit, of fp32, bf16 and int8 at full size and of int8 with the embedded model.
GOALS = {"AVX-512 VNNI": (8.5, 0.92, 0.92, 0.87, 0.80), "AVX2": (2.2, 0.90, 0.90, 0.85, 0.75)}
GOALS["AMX"] = GOALS["AVX-512 VNNI"]
OF_BEST_BATCH = 0.70  # of an engine's speed at its best batch size, at batch size 1
MORE_ERRORS = 1  # words more wrong than float32's that still keep the transcripts


class Settings(NamedTuple):
    """How to measure: batch sizes that the calibration tries, rounds, threads and device."""

    batch_sizes: Sequence[int]
    rounds: int
    threads: int
    device: str


class Row(NamedTuple):
    """What is measured: `transcribe` turns a set of features into texts, in the set's order."""

    row: str
    engine: str
    batch_size: int | None
    precision: str
    transcribe: Callable[[FeatureSet], list[str]] | None


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
        self.eager = transcripts.read(place / "eager" / "transcripts.jsonl")

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
    model: Model, engine: engines.Engine, batch_size: int, threads: int
) -> Iterator[engines.Session]:
    """A session of an engine, compiled in a temporary folder."""
    backend = engines.create(engine)
    backend.prepare()
    source = EXPORTS[engine.export.source].format(**engine.export._asdict())
    widths = Batches(model.features, batch_size, engine.pad_to).widths()
    shapes = [engines.Shape(batch_size, model.features.bins, frames) for frames in widths]
    with tempfile.TemporaryDirectory() as folder:
        backend.compile(model.folder / source, shapes, Path(folder))
        session = backend.open(Path(folder), threads)
        try:
            yield session
        finally:
            session.close()


def transcriber(
    session: engines.Session, engine: engines.Engine, batch_size: int, labels: list[str]
) -> Callable[[FeatureSet], list[str]]:
    """Our pipeline: batches are assembled ahead, decoded whole, and a device computes meanwhile."""
    decoder = Greedy(labels)

    def transcribe(features: FeatureSet) -> list[str]:
        texts: list[str] = []
        batches = Batches(features, batch_size, engine.pad_to)
        for positions, probabilities, lengths in outputs(session, batches):
            count = len(positions)
            texts += decoder.batch(probabilities[:count], lengths[:count])
        return texts

    return transcribe


def timed(row: Row, features: FeatureSet, device: str) -> tuple[float, list[str]]:
    """Seconds of a whole pass after a warm-up, and its texts.

    The warm-up is a batch, on a GPU a whole pass: cuDNN prepares itself for every width that it
    meets, and CUDA graphs are recorded then.
    """
    count = min(row.batch_size, len(features)) if device == "cpu" else len(features)
    row.transcribe(Part(features, range(count)))
    start = time.perf_counter()
    texts = row.transcribe(features)
    return time.perf_counter() - start, texts


def sample(features: FeatureSet, batch_size: int) -> FeatureSet:
    """Some whole batches, evenly from the longest to the shortest."""
    starts = range(0, len(features), batch_size)
    starts = starts[:: max(1, len(starts) // max(4, 32 // batch_size))]
    ends = (min(start + batch_size, len(features)) for start in starts)
    return Part(features, [p for start, end in zip(starts, ends) for p in range(start, end)])


def row_of(model: Model, name: str, engine: engines.Engine, batch_size: int, session) -> Row:
    """The row of one of our engines."""
    transcribe = transcriber(session, engine, batch_size, model.labels)
    return Row("ours", name, batch_size, engine.precision, transcribe)


def calibrate(
    model: Model, features: FeatureSet, name: str, engine: engines.Engine, settings: Settings
) -> tuple[int, float | None]:
    """The batch size at which an engine computes most useful frames per second.

    And the share of these that it computes at batch size 1, if that was tried.
    """
    pace = {}
    for batch_size in settings.batch_sizes:
        with opened(model, engine, batch_size, settings.threads) as session:
            part = sample(features, batch_size)
            row = row_of(model, name, engine, batch_size, session)
            seconds, _ = timed(row, part, settings.device)
        pace[batch_size] = sum(u["frames"] for u in part.utterances) / seconds
    best = max(pace, key=pace.__getitem__)
    shown = ", ".join(f"{size}: {frames:.0f}" for size, frames in pace.items())
    say(f"{model.name}, {name}: frames/s by batch size {shown}")
    return best, pace[1] / pace[best] if 1 in pace else None


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


def measure(model: Model, chosen: dict[str, engines.Engine], settings: Settings) -> list[dict]:
    """The table's rows of one model: values by name of COLUMNS, and what `goals` looks at."""
    copies = CUDA_COPIES if settings.device == "cuda" else 1
    features = repeated(model.features, copies) if copies > 1 else model.features
    found = {n: calibrate(model, features, n, e, settings) for n, e in chosen.items()}
    best = {name: size for name, (size, _) in found.items()}
    with ExitStack() as stack:
        rows = list(yardsticks(model, settings.device))
        for name, engine in chosen.items():
            session = stack.enter_context(opened(model, engine, best[name], settings.threads))
            rows.append(row_of(model, name, engine, best[name], session))
        precisions = limit.KERNELS_OF[settings.device]
        laps: list[list[float]] = []  # utterances/s by round and row; peaks by round and precision
        peaks: list[dict[str, float]] = []
        judged: list[list[tuple]] = []
        for number in range(settings.rounds):
            peaks.append({name: _peak(name, settings) for name in precisions})
            passes = [timed(row, features, settings.device) for row in rows]
            laps.append([len(features) / seconds for seconds, _ in passes])
            judged.append([model.errors(texts[::copies]) for _, texts in passes])
            say(f"{model.name}, round {number + 1} of {settings.rounds}: " + " ".join(
                f"{row.engine}@{row.batch_size} {lap:.2f}" for row, lap in zip(rows, laps[-1])
            ))  # fmt: skip
    each = model.operations_each()
    for precision in precisions:
        rows.append(Row("limit", f"gemm-{precision}", None, precision, None))
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
        if row.row == "ours" and found[row.engine][1] is not None:
            line["of_best_batch"] = found[row.engine][1]
        table.append(line)
    return table


def _peak(precision: str, settings: Settings) -> float:
    """The limit of a precision in operations per second."""
    found = limit.peak(settings.device, precision)
    if settings.device == "cpu":
        own = limit.sequence(precision)
        found = max(found, limit.sequence_peak(precision, own, settings.threads))
    return found


def show_sequences(threads: int) -> None:
    """The instructions that this CPU can use, the one that an engine takes first, with limits."""
    print(f"{node.cpu_name()}, {threads} threads")
    print("| precision | instructions | GOP/s in the first cache |\n|---|---|---|")
    for precision, name, peak in limit.sequence_peaks(threads):
        print(f"| {precision} | {name} | {peak / 1e9:.1f} |")
    print()


def write(path: Path, table: list[dict]) -> None:
    """The table for programs, as TSV."""
    with replacing(path) as temporary:
        temporary.write_text(to_tsv(COLUMNS, frame(COLUMNS, table)), encoding="utf-8")


def shown(table: list[dict]) -> str:
    """The table for readers: medians with least and largest behind."""
    return to_markdown(for_readers(COLUMNS, as_text(COLUMNS, frame(COLUMNS, table), readers=True)))


def goals(table: list[dict], float32_errors: dict[str, int]) -> list[str]:
    """One line per target: met or missed.

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

    def goal(line: dict, column: str, target: float, what: str) -> None:
        if column in line:
            verdict = "met" if line[column] >= target else "missed"
            name = f"{line['model']}, {line['engine']} at batch size {line['batch_size']}"
            lines.append(f"{verdict}: {name}: {line[column]:.4g} {what} (target {target:g})")

    instructions = limit.sequence("int8").name
    aims = GOALS.get(instructions, GOALS["AVX2"])
    on_cpu = any(line["row"] == "guide" for line in table)  # the targets are a CPU's
    for model in dict.fromkeys(line["model"] for line in table):
        of_model = [line for line in ours if line["model"] == model]
        keeping = [line for line in of_model if line["engine"] not in lost]
        native = {
            line["precision"]: line for line in of_model if line["engine"].startswith("native-")
        }
        shares = dict(zip(("fp32", "bf16", "int8"), aims[1:4] if model == FULL_SIZE else ()))
        if model != FULL_SIZE:
            shares["int8"] = aims[4]
        if keeping:
            best = max(keeping, key=lambda line: line["utterances_per_s"])
            if model == FULL_SIZE and on_cpu:
                goal(best, "ratio_to_reference", aims[0], "times the reference")
                goal(best, "utterances_per_s", PUBLISHED, "utterances/s")
            goal(best, "ratio_to_guide", TO_GUIDE, "times the guide at batch size 16")
        for precision, line in native.items():
            if precision in shares:
                goal(line, "share_of_peak", shares[precision], "of the limit")
            if precision == "bf16" and instructions == "AVX-512 VNNI" and model == FULL_SIZE:
                goal(line, "ratio_to_reference", BF16_TO_REFERENCE, "times the reference")
            if precision != "bf16":
                what = "of its best batch size's speed at batch size 1"
                goal(line, "of_best_batch", OF_BEST_BATCH, what)
        for precision in dict.fromkeys(line["precision"] for line in of_model):
            rivals = [line for line in of_model if line["precision"] == precision]
            rivals.sort(key=lambda line: -line["utterances_per_s"])
            names = (f"{line['engine']} {line['utterances_per_s']:.4g}" for line in rivals)
            lines.append(f"fastest at {precision}: {model}: {', '.join(names)} utterances/s")
        if {"fp32", "int8"} <= native.keys():
            goal(
                {**native["int8"], "to_fp32": native["int8"]["utterances_per_s"]
                 / native["fp32"]["utterances_per_s"]},
                "to_fp32", 1, "times native-fp32",
            )  # fmt: skip
    lines += [f"left out: {name}: it does not keep the transcripts" for name in sorted(lost)]
    return lines


def show_growth(model: Model, name: str, engine: engines.Engine, settings: Settings) -> None:
    """Seconds per utterance and peak memory of this process, at growing numbers of utterances."""
    size, _ = calibrate(model, model.features, name, engine, settings)
    print("| utterances | seconds | ms per utterance | peak MiB |\n|---|---|---|---|")
    found = []
    with opened(model, engine, size, settings.threads) as session:
        row = row_of(model, name, engine, size, session)
        for copies in GROWTH:
            features = repeated(model.features, copies)
            seconds, _ = timed(row, features, settings.device)
            memory = machine.peak_memory_bytes() / 2**20
            found.append((seconds / len(features), memory))
            print(f"| {len(features)} | {seconds:.2f} | {1000 * found[-1][0]:.3f} | {memory:.0f} |")
    pace, memory = (found[-1][i] / found[0][i] for i in (0, 1))
    print(f"{GROWTH[-1]} times as many: {pace:.3f} times the time of each, {memory:.3f} the memory")


def show_profile(model: Model, name: str, engine: engines.Engine, settings: Settings) -> None:
    """Where the time of a pass goes, step by step, and beside it the pass as it is, overlapped."""
    features, decoder, clock = model.features, Greedy(model.labels), time.perf_counter
    size, _ = calibrate(model, features, name, engine, settings)
    batches = Batches(features, size, engine.pad_to)
    with opened(model, engine, size, settings.threads) as session:
        row = row_of(model, name, engine, size, session)
        whole, _ = timed(row, features, settings.device)
        session.profile()
        parts = dict.fromkeys(("assemble", "upload", "forward", "download", "decode"), 0.0)
        for start in batches.starts:
            times = [clock()]
            batch = batches.assemble(start)
            times.append(clock())
            on_device = session.upload(batch.spectrograms, batch.lengths)
            times.append(clock())
            result = session.forward(on_device)
            session.synchronize()
            times.append(clock())
            probabilities, lengths = session.download(result)
            times.append(clock())
            decoder.batch(probabilities, lengths)
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


def runnable(config: Config, names: list[str] | None, device: str) -> dict[str, engines.Engine]:
    """The named engines, or else those of the device that can run in this interpreter."""
    for name in names or []:
        if name not in config.engines:
            known = ", ".join(config.engines)
            raise UserError(f"engine {name!r} is not defined; defined are: {known}")
    found = {}
    for name in names or config.engines:
        engine = config.engine(name)
        if not names and (config.engines[name].python or not engine.device.startswith(device)):
            continue
        try:
            engines.create(engine).prepare()
        except UserError as error:
            if names:
                raise
            say(f"left out: {name}: {error}")
            continue
        found[name] = engine
    return found


def main(
    *,
    results: Path = ROOT / "results",
    config: Path | None = None,
    dataset: str = "an4",
    models: list[str] = ("embedded", FULL_SIZE),
    engines: list[str] | None = None,
    batch_sizes: list[int] | None = None,
    rounds: int = 3,
    device: Literal[tuple(limit.KERNELS_OF)] = "cpu",
    threads: int = torch.get_num_threads(),
    growth: str | None = None,
    profile: str | None = None,
) -> None:
    """Command line.

    results: folder of results that `snakemake bench` has filled, for bench.tsv, too
    config: configuration over config.yaml
    dataset: of the configuration
    models: of the configuration
    engines: of the configuration; without, all of the device that can run
    batch_sizes: sizes that the calibration tries; without, those of the device
    rounds: rounds over all rows
    device: where to compute
    threads: threads of the host
    growth: engine whose time and memory at growing numbers of utterances to show instead
    profile: engine whose time to show step by step instead
    """
    settings = Settings(batch_sizes or BATCH_SIZES[device], rounds, threads, device)
    torch.set_num_threads(threads)
    given = yaml.safe_load(config.read_text(encoding="utf-8")) if config else {}
    configuration = configure.complete(given)
    only = growth or profile
    chosen = runnable(configuration, [only] if only else engines, device)
    table: list[dict] = []
    errors = {}
    if device == "cpu" and not only:
        show_sequences(threads)
    for name in models:
        entry = configuration.models.get(name)
        random = entry is not None and entry.random is not None
        model = Model(results, dataset, name, random)
        if only:
            show = show_growth if growth else show_profile
            show(model, only, chosen[only], settings)
            continue
        table += measure(model, chosen, settings)
        if not random:
            hypotheses = [model.eager[u["id"]]["hypothesis"] for u in model.features.utterances]
            errors[name] = model.errors(hypotheses)[0]
    if table:
        write(results / "bench.tsv", table)
        print(shown(table))
        print("\n".join(goals(table, errors)))


if __name__ == "__main__":
    cli.run(main)
