"""Write the report: one HTML page with the table, the figures and every error, to be read offline.

Top is the table with its verdicts, then the figures, accuracy in parts, agreement with the eager
reference, engines compared, confusions, and the misrecognised utterances, to be searched, sorted
and filtered. Those with most errors can be heard and seen (spectrogram, posteriors, alignment), as
many as the page's size allows. Text from data is escaped by the template, whatever it holds, and
the page's own policy forbids it to load or run anything that is not in it.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jinja2
import markupsafe
import pandas as pd
import soundfile

from deepspeech2 import files, listing, media, posteriors_file, recordings, stage, table
from deepspeech2.architecture import Spectrogram
from deepspeech2.features import FeatureSet
from deepspeech2.figures import FIGURES, INK
from deepspeech2.stage import UserError, log

MEDIA_BYTES = 4 << 20  # of all sounds and pictures, before base64 makes them a third larger
MAX_HEARD = 100  # utterances with sound and picture
LIST_BYTES = 3 << 20  # of the list of errors, about
CARD_BYTES, WORD_BYTES = 900, 130  # of an error in the list, and of each of its words
MAX_CONFUSIONS = 25  # of each kind
BATCH = 16  # utterances that are drawn before the size is looked at again


class Job(NamedTuple):
    """What it takes to make an utterance's sound and picture."""

    sample: recordings.Sample
    features: FeatureSet
    place: int
    posteriors: object  # (T', classes) float32
    labels: list[str]
    spectrogram: Spectrogram


def make_media(job: Job) -> tuple[bytes, bytes]:
    """Sound (MP3) and picture (WebP) of one utterance."""
    frames = job.features.utterances[job.place]["frames"]
    drawn = job.features.load(job.place)[:, :frames]
    sample = job.sample
    if sample.wav_sha256:
        files.require_unaltered(sample.wav, sample.wav_sha256, sample.index)
    try:
        sound = media.sound(sample.wav)
    except soundfile.SoundFileError as error:
        raise UserError(f"{sample.wav}: cannot be read as audio ({error})") from None
    return sound, media.picture(drawn, job.posteriors, job.labels, job.spectrogram)


def jobs(results: Path, errors: Sequence[dict], manifests: dict[str, str]) -> list[Job]:
    """What to make for some errors, in their order."""
    sets: dict[tuple, tuple] = {}
    samples = {
        name: {s.id: s for s in recordings.read_manifest(path)} for name, path in manifests.items()
    }
    wanted: dict[str, set[str]] = {}
    for error in errors:
        wanted.setdefault(error["rows"][0].name, set()).add(error["utterance"])
    posteriors = {}
    for row, names in wanted.items():
        paths = results / row / "posteriors.bin", results / row / "posteriors.json"
        posteriors[row] = {n: p for n, p in posteriors_file.read(*paths) if n in names}
    found = []
    for error in errors:
        key = (error["dataset"], error["model"])
        if key not in sets:
            base = results.joinpath(*key)
            data = files.read_json(base / "features.json")
            sets[key] = (
                FeatureSet(base / "features", base / "features.json"),
                data["labels"],
                Spectrogram(**data["spectrogram"]),
            )
        features, labels, spectrogram = sets[key]
        name = error["utterance"]
        probabilities = posteriors[error["rows"][0].name][name]
        sample = samples[error["dataset"]][name]
        found.append(Job(sample, features, error["place"], probabilities, labels, spectrogram))
    return found


def add_media(
    results: Path, errors: Sequence[dict], manifests: dict[str, str], processes: int
) -> int:
    """Give the first errors sound and picture, as many as MEDIA_BYTES allow; returns how many."""
    chosen = errors[:MAX_HEARD]
    waiting = jobs(results, chosen, manifests)
    used = done = 0
    with ProcessPoolExecutor(processes) as pool:
        for start in stage.progress(range(0, len(chosen), BATCH), None, "report", "utterances"):
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
    same = [name for name in ("dataset", "model", "engine") if shown[name].nunique() == 1]
    caption = ", ".join(f"{name} {shown[name].iloc[0]}" for name in same)
    return {"shown": shown.drop(columns=same), "caption": caption}


def sections(rows: Sequence[listing.Row]) -> Iterator[dict]:
    """Accuracy in parts and confusions of each set of rows with the same transcripts."""
    for group in listing.groups(rows):
        accuracy = group[0].record["accuracy"]
        yield {
            "title": f"{group[0].dataset}, {group[0].model}, {listing.where(group)}",
            "coverage": accuracy["coverage"],
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


def measured(row: listing.Row) -> dict:
    """How a row was measured: phases in ms per utterance, shares in percent, sizes in MB."""
    timing = row.record["offline"]
    phases = timing["phase_seconds"].items()
    return {
        "row": f"{row.dataset} {row.model} {row.engine} at {row.batch_size}",
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


def page(template: Path, **content) -> str:
    """The page, with a policy that lets only its own script run and nothing be loaded."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (template.parent / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return environment.get_template(template.name).render(
        script=markupsafe.Markup(script),
        script_hash=digest,
        style=markupsafe.Markup((template.parent / "report.css").read_text(encoding="utf-8")),
        **content,
    )


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--results", required=True, help="folder of all results")
    parser.add_argument("--rows", nargs="+", required=True, metavar="ROW")
    parser.add_argument(
        "--published", nargs="*", default=[], metavar="DATASET=TSV", help="published figures"
    )
    parser.add_argument(
        "--manifests", nargs="+", required=True, metavar="DATASET=JSON", help="for the audio"
    )
    parser.add_argument("--figures", required=True, help="folder of the figures (SVG)")
    parser.add_argument("--template", required=True, help="the page's template (Jinja)")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--report", required=True, help="page to write (HTML)")
    args = stage.parse(parser, argv)

    results = Path(args.results)
    rows = listing.read_rows(results, args.rows)
    published, remarks = table.read_published(args.published)
    frame = table.read_rows(results, args.rows, published)
    errors = listing.errors(results, rows)
    manifests = dict(argument.split("=", 1) for argument in args.manifests)
    heard = add_media(results, errors, manifests, args.processes)
    sizes = itertools.accumulate(CARD_BYTES + WORD_BYTES * len(e["words"]) for e in errors)
    listed = [error for error, size in zip(errors, sizes) if size <= LIST_BYTES]
    for error in listed:
        error["set"] = f"{error['dataset']} {error['model']}"
    texts = {
        "rows": frame.to_dict("records"),
        **split(table.shown(frame)),
        "notes": table.notes(frame, remarks),
        "figures": {
            name: (inline_svg(Path(args.figures) / f"{name}.svg"), FIGURES[name].__doc__)
            for name in FIGURES
        },
        "sections": list(sections(rows)),
        "agreement": listing.agreement(rows),
        "differing": [
            {"row": row.name, **entry}
            for row in rows
            for entry in row.record["agreement"]["first_differing"]
        ],
        "engines": listing.engines(rows),
        "measured": [measured(row) for row in rows],
        "errors": [{"sound": None, **error} for error in listed],
        "counts": {"all": len(errors), "listed": len(listed), "heard": heard},
        "where": listing.where,
        "records": {
            row.name: json.dumps(
                {k: row.record[k] for k in ("configuration", "environment", "hashes")},
                indent=1,
                ensure_ascii=False,
            )
            for row in rows
        },
    }
    with files.replacing(args.report) as temporary:
        temporary.write_text(page(Path(args.template), **texts), encoding="utf-8")
    log.info("%d errors, %d of them to be heard", len(errors), heard)


if __name__ == "__main__":
    stage.run(main)
