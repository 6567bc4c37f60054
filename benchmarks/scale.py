"""How the workflow grows: minutes, memory and bytes on disk for sets of any number of utterances.

    python benchmarks/scale.py --archive an4_raw.bigendian.tar.gz --utterances 1000 10000

Makes corpora by repeating AN4 test: each utterance a file under many names (files), or 200 long
recordings with segments (segments, Kaldi's layout). Runs the workflow on each, in shards, with a
tiny random network on native-int8, and prints what each rule took. The corpora and results stay in
the folder of --out, whose names say what they are; a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow"))

from deepspeech2.corpus import layouts  # noqa: E402

RECORDINGS = 200
CONFIG = """\
run:
  datasets: [grown]
  models: [tiny]
  engines: [native-int8]
  batch_sizes: [16]
datasets:
  grown: {{layout: {layout}, path: {path}, shards: {shards}}}
models:
  tiny: {{random: {{hidden_size: 64, hidden_layers: 2}}}}
"""


def an4(archive: Path) -> tuple[list, dict]:
    """Utterances of AN4 test, and their samples (n,) int16 by id."""
    layout, sounds = layouts.create("an4", archive, layouts.Rules()), {}
    found = layout.read(lambda name, sound: sounds.setdefault(name, sound.samples))
    parts = layout.parts_of(found)
    return [u for u in found if parts[u.id] == "test"], sounds


def make_files(folder: Path, count: int, utterances: list, sounds: dict) -> str:
    """A folder of recordings, each under many names (hard links), with a table of texts."""
    (folder / "audio").mkdir(parents=True)
    lines, first = ["path\ttranscript\tspeaker\n"], {}
    for number, utterance in zip(range(count), itertools.cycle(utterances)):
        name = folder / "audio" / f"{number % 100:02}" / f"u{number:06}.wav"
        name.parent.mkdir(exist_ok=True)
        # A file has only so many names.
        kept = first.get(utterance.id)
        if kept is None or number // len(utterances) % 1000 == 0:
            soundfile.write(name, sounds[utterance.id], 16000)
            first[utterance.id] = name
        else:
            os.link(kept, name)
        path = name.relative_to(folder)
        lines.append(f"{path}\t{utterance.text}\t{utterance.speaker}{number // 1300}\n")
    (folder / "texts.tsv").write_text("".join(lines))
    return "tsv"


def make_segments(folder: Path, count: int, utterances: list, sounds: dict) -> str:
    """A data folder in Kaldi's layout, of a few long recordings."""
    (folder / "audio").mkdir(parents=True)
    tables = {name: [] for name in ("wav.scp", "segments", "text", "utt2spk")}
    numbers = zip(range(count), itertools.cycle(utterances))
    for recording in range(RECORDINGS):
        part = list(itertools.islice(numbers, count // RECORDINGS))
        start, samples = 0, []
        for number, utterance in part:
            name, sound = f"u{number:06}", sounds[utterance.id]
            end = start + len(sound)
            tables["segments"].append(f"{name} r{recording} {start / 16000:.6f} {end / 16000:.6f}")
            tables["text"].append(f"{name} {utterance.text}")
            tables["utt2spk"].append(f"{name} {utterance.speaker}{number // 1300}")
            samples.append(sound)
            start = end
        soundfile.write(folder / "audio" / f"r{recording}.wav", np.concatenate(samples), 16000)
        tables["wav.scp"].append(f"r{recording} audio/r{recording}.wav")
    for name, lines in tables.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    return "kaldi"


FORMS = {"files": (make_files, "texts.tsv"), "segments": (make_segments, ".")}


def bytes_of(folder: Path) -> int:
    """Bytes that a folder takes, by du."""
    found = subprocess.run(["du", "-sb", folder], capture_output=True, text=True, check=True)
    return int(found.stdout.split()[0])


def by_rule(folder: Path) -> pd.DataFrame:
    """Jobs, seconds, CPU seconds, peak MiB of each stage, as Snakemake measured them."""
    rows = []
    for path in sorted((folder / "results/benchmarks").rglob("*.tsv")):
        row = pd.read_csv(path, sep="\t", na_values="-").iloc[0]
        part = "part " if "parts" in path.parts else ""
        eager = "eager " if "eager" in path.parts else ""
        rows.append(
            {
                "stage": part + eager + path.stem,
                "s": row["s"],
                "cpu": row["cpu_time"],
                "MiB": row["max_rss"],
            }
        )
    frame = pd.DataFrame(rows).groupby("stage", sort=False)
    return frame.agg(
        jobs=("s", "size"),
        s=("s", "sum"),
        cpu_s=("cpu", "sum"),
        longest_s=("s", "max"),
        MiB=("MiB", "max"),
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archive", type=Path, required=True, help="AN4")
    parser.add_argument("--out", type=Path, default=Path("scale"), help="folder to fill (scale)")
    parser.add_argument("--utterances", type=int, nargs="+", default=[1000], help="how many (1000)")
    parser.add_argument("--forms", choices=FORMS, nargs="+", default=["files"], help="of corpora")
    parser.add_argument("--shards", type=int, default=4, help="parts of each set (4)")
    parser.add_argument("--cores", default="all", help="for snakemake (all)")
    parser.add_argument("--targets", nargs="*", default=[], help="of snakemake (the table)")
    args = parser.parse_args()
    utterances, sounds = an4(args.archive)
    for form, count in itertools.product(args.forms, args.utterances):
        make, source = FORMS[form]
        folder = args.out.absolute() / f"{form}-{count}-{args.shards}"
        corpus = args.out.absolute() / f"{form}-{count}"
        if not corpus.exists():
            making = corpus.with_suffix(".making")
            make(making, count, utterances, sounds)
            making.rename(corpus)
        folder.mkdir(parents=True, exist_ok=True)
        layout = "tsv" if form == "files" else "kaldi"
        text = CONFIG.format(layout=layout, path=corpus / source, shards=args.shards)
        (folder / "scale.yaml").write_text(text)
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--quiet", "all",
             "--cores", args.cores, "--configfile", "scale.yaml", "--", *args.targets],
            cwd=folder, check=True,
        )  # fmt: skip
        minutes = (time.perf_counter() - start) / 60
        held = {
            name: bytes_of(folder / "results" / name) / 1e6
            for name in ("datasets", "grown")
            if (folder / "results" / name).exists()
        }
        print(f"\n{form}, {count} utterances, {args.shards} shards: {minutes:.1f} min")
        print(", ".join(f"results/{name} {size:.0f} MB" for name, size in held.items()))
        print(by_rule(folder).round(1).to_string(), flush=True)


if __name__ == "__main__":
    main()
