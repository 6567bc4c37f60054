"""What the workflow itself costs on this machine: seconds and memory, beside their targets.

    python benchmarks/pipeline.py --archive an4_raw.bigendian.tar.gz

Without --archive it stops after the default run and the table of where its seconds go: those of all
jobs of a rule, and how many of them are spent on starting interpreters and on imports. These were
measured in another run, of one job at a time, in which Python tells how long each import takes
(Snakemake's Python, too, where it imports something meanwhile).
Runs in a fresh copy of the project. Absolute times of a shared machine mean little: compare them
with those of another run on the same machine, and look at the ratio of the memory figures.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("torch", "numpy", "scipy", "pandas", "matplotlib")  # whose imports stand apart
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
    data.pop("seal", None)
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


def jobs(folder: Path) -> list[tuple[float, float, str]]:
    """Start, end and rule of every job of the last run, as Snakemake has recorded them."""
    found = {}  # by job: there is a record of each output
    for path in (folder / ".snakemake/metadata").rglob("*"):
        if path.is_file():
            job = json.loads(path.read_text())
            found[tuple(job["log"])] = job["starttime"], job["endtime"], job["rule"]
    return sorted(found.values())


def imports(log: str) -> dict[str, dict[str, float]]:
    """Seconds of imports by rule and library, from the output of a run of one job at a time."""
    found: dict[str, dict[str, float]] = {}
    rule = None
    for line in log.splitlines():
        if job := re.match(r"(?:local)?rule (\w+):", line):
            rule = found.setdefault(job[1], dict.fromkeys((*LIBRARIES, "others"), 0.0))
        elif (module := re.match(r"import time: +(\d+) \| +\d+ \| +(\w+)", line)) and rule:
            rule[module[2] if module[2] in LIBRARIES else "others"] += int(module[1]) / 1e6
    return found


def where(folder: Path, seconds: float) -> None:
    """Print where the seconds of the last run in `folder` went."""
    done = jobs(folder)
    again = folder.with_name("again")
    shutil.copytree(folder, again, ignore=shutil.ignore_patterns("results", ".snakemake"))
    profiled = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--verbose"],  # with names of rules
        cwd=again,
        env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = imports(profiled.stderr)
    start = min(run(["keyword"], folder)[0] for _ in range(5))
    columns = ["start", *LIBRARIES, "others"]
    print("\n| rule | jobs | seconds | " + " | ".join(columns) + " | computing |")
    print("|---" * (len(columns) + 4) + "|")
    total = [0.0] * (len(columns) + 3)
    for rule in sorted({rule for _, _, rule in done}):
        spent = [end - begin for begin, end, other in done if other == rule]
        parts = [len(spent) * start, *imported[rule].values()]
        row = [len(spent), sum(spent), *parts, sum(spent) - sum(parts)]
        total = [a + b for a, b in zip(total, row)]
        print(f"| {rule} | {row[0]} | " + " | ".join(f"{value:.1f}" for value in row[1:]) + " |")
    print(f"| all | {total[0]:.0f} | " + " | ".join(f"{value:.1f}" for value in total[1:]) + " |")
    idle, last = 0.0, done[0][0]
    for begin, end, _ in done:
        idle, last = idle + max(0.0, begin - last), max(last, end)
    outside = seconds - (last - done[0][0])
    print(
        f"\nOf the {seconds:.1f} s of this run Snakemake took {outside:.1f} s before the first and "
        f"after the last job, and {idle:.1f} s in which no job ran between them.\n"
    )


def main() -> None:
    """Command line: see `--help`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archive", type=Path, help="AN4, any packaging")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2)
    args = parser.parse_args()

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
        report("default run from nothing", whole, "s", "60 s or less")
        again = [run(snakemake, folder)[0] for _ in range(args.rounds)]
        report("default run, nothing changed", again, "s", "3 s or less")
        where(folder, whole[-1])
        if args.archive is None:
            return
        print("| what | median | range | target |\n|---|---|---|---|")
        options = [
            "--configfile", "config/an4.yaml", "--config",
            f"archive={args.archive.resolve()}", "run={models: [embedded]}", "--",
        ]  # fmt: skip
        base = folder / "results/datasets/an4"
        manifest = base / "an4_test_manifest.json"
        model = folder / "results/models/embedded/model.json"
        torchscript = folder / "results/models/embedded/torchscript_static"
        run([*snakemake, *options, manifest.relative_to(folder)], folder)
        memory: dict[str, list[float]] = {"preprocess": [], "infer": [], "timing": []}
        for copies in (1, COPIES):
            out = folder / f"memory{copies}"
            features = ["--features", out / "features", "--features-index", out / "features.json"]
            command = [
                "deepspeech2.features.preprocess", "--manifest", repeated(manifest, copies),
                "--model", model, "--labels", base / "labels.json", "--processes", args.cores,
                "--features", out / "features", "--index", out / "features.json",
            ]  # fmt: skip
            rounds = [run(command, folder) for _ in range(args.rounds)]
            target = "5 s or less" if copies == 1 else ""
            report(f"preprocess, {130 * copies} utterances", [s for s, _ in rounds], "s", target)
            memory["preprocess"].append(max(m for _, m in rounds))
            engine = [
                "--batch-size", 16, "--engine", '{"backend": "torchscript", "padding": "batch"}',
            ]  # fmt: skip
            artefact = ["--artefact", out / "compiled"]
            command = [
                "deepspeech2.engines.compile", "--source", f"{torchscript}.pt", "--source-index",
                f"{torchscript}.json", "--features-index", out / "features.json", *engine,
                *artefact, "--index", out / "compiled.json",
            ]  # fmt: skip
            run(command, folder)
            compiled = [*features, *artefact, "--artefact-index", out / "compiled.json", *engine]
            compiled += ["--threads", args.cores]
            results = ["--posteriors", out / "p.bin", "--index", out / "p.json"]
            command = ["deepspeech2.engines.infer", *compiled, *results]
            memory["infer"].append(run(command, folder)[1])
            once = ["--multi", 1, "--model", model, "--timing", out / "timing.json"]
            once += ["--posteriors", out / "p.bin", "--posteriors-index", out / "p.json"]
            command = ["deepspeech2.engines.timing", *compiled, *once]
            memory["timing"].append(run(command, folder)[1])
        for stage, (small, large) in memory.items():
            report(f"{stage}, peak memory at 130 utterances", [small], "MiB", "")
            report(f"{stage}, peak memory at 1300 utterances", [large], "MiB", "the same")
            report(f"{stage}, ratio of the two", [large / small], "times", "1")


if __name__ == "__main__":
    main()
