"""What the workflow itself costs on this machine: seconds and memory, beside their targets.

    python benchmarks/pipeline.py --archive an4_raw.bigendian.tar.gz

Runs in a fresh copy of the project. Absolute times of a shared machine mean little: compare them
with those of another run on the same machine, and look at the ratio of the memory figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIES = 10  # of AN4 test's 130 utterances, for the larger set


def run(command: list, folder: Path) -> tuple[float, float]:
    """Wall seconds of a command, and the peak resident MiB of its largest process."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "workflow")}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"error: {' '.join(map(str, command))}: {errors}")
    return seconds, usage.ru_maxrss / 1024


def repeated(manifest: Path, copies: int) -> Path:
    """A manifest that lists every utterance of another so many times, each with its own id."""
    data = json.loads(manifest.read_text())
    data["samples"] = [
        {**sample, "id": f"{sample['id']}-{copy}"}
        for copy in range(copies)
        for sample in data["samples"]
    ]
    path = manifest.with_name(f"{copies}x.json")
    path.write_text(json.dumps(data))
    return path


def report(what: str, figures: list[float], unit: str, target: str) -> None:
    """One row: the median of the rounds and their range."""
    spread = f"{min(figures):.1f} to {max(figures):.1f}" if len(figures) > 1 else ""
    print(f"| {what} | {statistics.median(figures):.1f} {unit} | {spread} | {target} |", flush=True)


def main() -> None:
    """Command line: see `--help`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archive", required=True, type=Path, help="AN4, any packaging")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2)
    args = parser.parse_args()
    archive = args.archive.resolve()

    print("| what | median | range | target |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "checkout"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "__pycache__", "results"))
        snakemake = ["snakemake", "--cores", args.cores]
        dry = [run([*snakemake, "-n"], folder)[0] for _ in range(args.rounds)]
        report("dry run, nothing built", dry, "s", "3 s or less")
        whole = []
        for _ in range(args.rounds):
            for name in ("results", ".snakemake"):
                shutil.rmtree(folder / name, ignore_errors=True)
            whole.append(run(snakemake, folder)[0])
        report("default run from nothing", whole, "s", "90 s or less")
        again = [run(snakemake, folder)[0] for _ in range(args.rounds)]
        report("default run, nothing changed", again, "s", "a few seconds")

        options = [
            "--configfile", "config/an4.yaml", "--config",
            f"archive={archive}", "run={models: [embedded]}", "--",
        ]  # fmt: skip
        base = folder / "results/datasets/an4"
        manifest = base / "an4_test_manifest.json"
        model = folder / "results/models/embedded/model.json"
        torchscript = folder / "results/models/embedded/torchscript_static"
        run([*snakemake, *options, manifest.relative_to(folder)], folder)
        memory: dict[str, list[float]] = {"preprocess": [], "posteriors": [], "timing": []}
        for copies in (1, COPIES):
            out = folder / f"memory{copies}"
            features = ["--features", out / "features", "--features-index", out / "features.json"]
            command = [
                "deepspeech2.preprocess", "--manifest", repeated(manifest, copies),
                "--model", model, "--labels", base / "labels.json", "--processes", args.cores,
                "--features", out / "features", "--index", out / "features.json",
            ]  # fmt: skip
            rounds = [run(command, folder) for _ in range(args.rounds)]
            target = "5 s or less" if copies == 1 else ""
            report(f"preprocess, {130 * copies} utterances", [s for s, _ in rounds], "s", target)
            memory["preprocess"].append(max(m for _, m in rounds))
            engine = [
                "--artefact", out / "compiled", "--artefact-index", out / "compiled.json",
                "--batch-size", 16, "--backend", "torchscript", "--padding", "batch",
            ]  # fmt: skip
            command = [
                "deepspeech2.compile", "--source", f"{torchscript}.pt", "--source-index",
                f"{torchscript}.json", "--features", out / "features.json", "--batch-size", 16,
                "--backend", "torchscript", "--padding", "batch",
                "--artefact", out / "compiled", "--index", out / "compiled.json",
            ]  # fmt: skip
            run(command, folder)
            threads = ["--processes", args.cores]
            results = ["--posteriors", out / "p.bin", "--index", out / "p.json"]
            command = ["deepspeech2.posteriors", *features, *engine, *threads, *results]
            memory["posteriors"].append(run(command, folder)[1])
            once = ["--multi", 1, "--model", model, "--timing", out / "timing.json"]
            command = ["deepspeech2.timing", *features, *engine, *threads, *once]
            memory["timing"].append(run(command, folder)[1])
        for stage, (small, large) in memory.items():
            report(f"{stage}, peak memory at 130 utterances", [small], "MiB", "")
            report(f"{stage}, peak memory at 1300 utterances", [large], "MiB", "the same")
            report(f"{stage}, ratio of the two", [large / small], "times", "1")


if __name__ == "__main__":
    main()
