"""Write the report: one HTML page with the table, the figures and every error, to be read offline.

Top is the table with its verdicts, then the figures, accuracy in parts, agreement with the eager
reference, engines compared, confusions, and the misrecognised utterances, to be searched, sorted
and filtered. Those with most errors can be heard and seen (spectrogram, posteriors, alignment), as
many as the page's size allows. Text from data is escaped by the template, whatever it holds, and
the page's own policy forbids it to load or run anything that is not in it.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import markupsafe
import numpy as np
import pandas as pd
import soundfile

from deepspeech2 import cli, files
from deepspeech2.cli import Cores, Input, Output, UserError, log
from deepspeech2.corpus import audio, manifest
from deepspeech2.corpus.manifest import Sample
from deepspeech2.features.spectrogram import Spectrogram, compute
from deepspeech2.model import posteriors as posteriors_file
from deepspeech2.report import listing, media, pairs, sentences, summary
from deepspeech2.report import published as published_figures
from deepspeech2.report.figures import FIGURES
from deepspeech2.report.html import render
from deepspeech2.report.rows import Row, coverage, groups, of_speed, where
from deepspeech2.report.style import INK

SCRIPTS = ("tables.js", "report.js", "pairs.js")
NAMES = ("dataset", "model", "engine", "decoder")  # columns of the table
MEDIA_BYTES = 4 << 20  # of all sounds and pictures, before base64 makes them a third larger
MAX_HEARD = 100  # utterances with sound and picture
LIST_BYTES = 3 << 20  # of the list of errors, about
CARD_BYTES, WORD_BYTES = 900, 130  # of an error in the list, and of each of its words
MAX_CONFUSIONS = 25  # of each kind
BATCH = 16  # utterances that are drawn before the size is looked at again


class Job(NamedTuple):
    """What it takes to make an utterance's sound and picture."""

    sample: Sample
    labels: list[str]
    settings: Spectrogram
    posteriors: np.ndarray  # (T', classes) float32


def make_media(job: Job) -> tuple[bytes, bytes]:
    """Sound (MP3) and picture (WebP) of one utterance."""
    sample = job.sample
    path = sample.utterance.audio
    if sample.audio_sha256:
        files.require_unaltered(path, sample.audio_sha256, sample.index)
    try:
        sound = media.sound(path)
        drawn = compute(audio.to_float(audio.read(path).samples), job.settings)
    except soundfile.SoundFileError as error:
        raise UserError(f"{path}: cannot be read as audio ({error})") from None
    return sound, media.picture(drawn, job.posteriors, job.labels, job.settings)


def jobs(errors: Sequence[dict], manifests: Mapping[str, Path]) -> list[Job]:
    """What to make for some errors, in their order."""
    samples = {
        name: {s.utterance.id: s for s in manifest.read(path)} for name, path in manifests.items()
    }
    wanted: dict[tuple, set[str]] = {}
    for error in errors:
        wanted.setdefault(error["rows"][0].posteriors, set()).add(error["utterance"])
    posteriors = {
        paths: {n: p for n, p in posteriors_file.read(*paths) if n in names}
        for paths, names in wanted.items()
    }
    of_features = functools.cache(files.read_sealed)
    made = []
    for error in errors:
        row, name = error["rows"][0], error["utterance"]
        about = of_features(row.features)
        sample, settings = samples[error["dataset"]][name], Spectrogram(**about["spectrogram"])
        made.append(Job(sample, about["labels"], settings, posteriors[row.posteriors][name]))
    return made


def add_media(errors: Sequence[dict], manifests: Mapping[str, Path], processes: int) -> int:
    """Give the first errors sound and picture, as many as MEDIA_BYTES allow; returns how many."""
    chosen = errors[:MAX_HEARD]
    waiting = jobs(chosen, manifests)
    used = done = 0
    with cli.pool(processes) as pool:
        for start in cli.progress(range(0, len(chosen), BATCH), None, "report", "utterances"):
            for sound, picture in pool.map(make_media, waiting[start : start + BATCH]):
                used += len(sound) + len(picture)
                if used > MEDIA_BYTES:
                    return done
                chosen[done]["sound"] = media.data_uri("audio/mpeg", sound)
                chosen[done]["picture"] = media.data_uri("image/webp", picture)
                done += 1
    return done


def inline_svg(path: Path) -> markupsafe.Markup:
    """A figure of our own making as part of the page, in the page's own text colour."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    # Their names must differ where several figures stand in one page.
    for name in sorted(set(re.findall(r' id="([^"]+)"', text)), key=len, reverse=True):
        new = f"{path.stem}-{name}"
        for old in (f'id="{name}"', f'"#{name}"', f"(#{name})"):
            text = text.replace(old, old.replace(name, new))
    return markupsafe.Markup(text.replace(INK, "currentColor"))


def split(shown: pd.DataFrame) -> dict:
    """The table without the names that are the same in every row, and those as its caption."""
    same = [name for name in NAMES if shown[name].nunique() == 1]
    caption = ", ".join(f"{name} {shown[name].iloc[0]}" for name in same)
    return {"shown": shown.drop(columns=same), "caption": caption}


def sections(rows: Sequence[Row]) -> Iterator[dict]:
    """Accuracy in parts and confusions of each set of rows with the same transcripts."""
    for group in groups(rows):
        accuracy = group[0].record["accuracy"]
        yield {
            "title": f"{group[0].dataset}, {group[0].model}, {where(group)}",
            "coverage": coverage(group[0].record),
            "confidence": accuracy["confidence"],
            "times": accuracy["times"],
            "parts": {
                kind: list(map(listing.flat, found))
                for kind, found in {
                    "all": [{"name": "all", **accuracy}],
                    **accuracy["parts"],
                }.items()
                if found
            },
            "confusions": {k: v[:MAX_CONFUSIONS] for k, v in accuracy["confusions"].items()},
        }


def measured(row: Row) -> dict:
    """How a row was measured: phases in ms per utterance, shares in percent, sizes in MB."""
    timing = row.record["offline"]
    phases = timing["phase_seconds"].items()
    return {
        "row": f"{row.dataset} {row.model} {row.label} at {row.batch_size}",
        **{f"{k} ms": f"{1000 * v / timing['utterances']:.3f}" for k, v in phases},
        **{
            f"{name} %": f"{100 * timing[key]:.1f}"
            for name, key in (
                ("spread", "spread"),
                ("load before", "load_before"),
                ("other load", "other_load"),
                ("padding", "padding_share"),
            )
        },
        "compile s": f"{timing['compile_seconds']:.1f}",
        **{
            f"{name} MB": "" if timing[key] is None else f"{timing[key] / 1e6:.0f}"
            for name, key in (
                ("artefact", "artefact_bytes"),
                ("peak memory", "peak_memory_bytes"),
                ("peak device memory", "peak_device_memory_bytes"),
            )
        },
    }


def sources(row: Row) -> dict[str, str]:
    """Where each column of the table comes from: files beside the page, as addresses."""
    network = f"{row.dataset}/{row.model}/{row.engine}/bs{row.batch_size}"
    eager = f"{row.dataset}/{row.model}/eager/{row.decoder}"
    files_of = {
        f"{row.name}/record.json": ("dataset", "model", "engine", "batch size", "decoder"),
        f"logs/{network}/timing.log": ("verdict",),
        f"{network}/timing.json": ("RTFx", "batch p50 ms", "batch p90 ms", "batch p99 ms"),
        f"{network}/times.tsv": ("utterances/s",),
        f"{network}/zeros.json": ("zeros by ais_bench/s",),
        f"{row.dataset}/{row.model}/{row.engine}/single_stream.json": (
            "single p50 ms", "single p90 ms", "single p99 ms",
        ),
        f"{row.dataset}/{row.model}/{row.engine}/server/{row.decoder}/server.json": (
            "server utterances/s",
        ),
        f"{row.name}/score.json": ("WER %", "WER 95 %", "WER % (whisper)", "CER %"),
        f"{row.name}/alignments.jsonl": ("S/D/I",),
        f"{row.name}/agreement.json": ("as eager",),
        f"{eager}/decoding_time.json": ("decoding ms",),
    }  # fmt: skip
    return {label: quote(path) for path, labels in files_of.items() for label in labels}


def main(
    records: list[Input],
    published: dict[str, Input],
    manifests: dict[str, Input],
    figures: list[Input],
    template: Input,
    report: Output,
    processes: Cores = 1,
    baseline: list[Input] = (),
) -> None:
    """Command line.

    records: the rows' records (JSON)
    published: tables of published figures, by dataset (TSV)
    manifests: the datasets' manifests, for the audio (JSON)
    figures: the figures (SVG)
    template: the page's template (Jinja), with its style and script beside it
    report: page to write (HTML)
    processes: processes that draw
    baseline: records of another run, which any row may be compared with (JSON)
    """
    rows = [Row(path) for path in records]
    known, remarks = published_figures.read(published)
    frame = summary.summarise([row.record for row in rows], known)
    errors = listing.errors(rows)
    heard = add_media(errors, manifests, processes)
    sizes = itertools.accumulate(CARD_BYTES + WORD_BYTES * len(e["words"]) for e in errors)
    listed = [error for error, size in zip(errors, sizes) if size <= LIST_BYTES]
    for error in listed:
        error["set"] = f"{error['dataset']} {error['model']}"
    two = pairs.side_by_side(rows, baseline)
    texts = {
        "rows": frame.to_dict("records"),
        **split(summary.shown(frame)),
        "sources": [sources(row) for row in rows],
        "pairs": markupsafe.Markup(pairs.as_script(two)) if two else "",
        "sentences": sentences.of_rows([row.record for row in rows]),
        "notes": summary.notes(frame, remarks),
        "figures": {path.stem: (inline_svg(path), FIGURES[path.stem].__doc__) for path in figures},
        "sections": list(sections(rows)),
        "agreement": listing.agreement(rows),
        "differing": [
            {"row": row.name, **entry}
            for row in rows
            for entry in row.record["agreement"]["first_differing"]
        ],
        "batch_sizes": listing.batch_sizes(rows),
        "engines": listing.engines(rows),
        "decoders": listing.decoders(rows),
        "names": NAMES,
        "measured": [measured(row) for row in of_speed(rows)],
        "errors": [{"sound": None, **error} for error in listed],
        "counts": {"all": len(errors), "listed": len(listed), "heard": heard},
        "where": where,
        "records": {
            row.name: json.dumps(
                {k: row.record[k] for k in ("configuration", "environment", "corpus", "hashes")},
                indent=1,
                ensure_ascii=False,
            )
            for row in rows
        },
    }
    with files.replacing(report) as temporary:
        temporary.write_text(render(template, SCRIPTS, **texts), encoding="utf-8")
    log.info("%d errors, %d of them to be heard", len(errors), heard)


if __name__ == "__main__":
    cli.run(main)
