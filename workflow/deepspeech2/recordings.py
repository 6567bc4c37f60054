"""A user's own recordings with transcripts, in three layouts.

- folder: audio files, each with a text file of the same name beside it (`a/b.wav`, `a/b.txt`);
- tsv: a table with the columns `path` and `transcript`, and `speaker` if known; paths are relative
  to the table's folder;
- manifest: a deepspeech.pytorch manifest (JSON with `root_path` and `samples`).

An utterance's id is its path without suffix. Nothing is read outside the folder, that of the table,
or the manifest's root, which may be any.
"""

from __future__ import annotations

import csv
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from deepspeech2 import audio
from deepspeech2.files import read_json
from deepspeech2.stage import UserError

VAL_EVERY = 10  # every tenth speaker is held out for validation


class Recording(NamedTuple):
    """An utterance before it is read: its audio file and its transcript."""

    id: str
    path: Path
    transcript: str
    speaker: str = ""


def read(layout: str, path: str | Path) -> list[Recording]:
    """The recordings of a corpus, sorted by id. Raises `UserError` for what does not fit."""
    readers = {"folder": _folder, "tsv": _tsv, "manifest": _manifest}
    seen: dict[str, Recording] = {}
    for recording in readers[layout](Path(path)):
        _check_id(recording.id, path)
        if recording.id in seen:
            raise UserError(
                f"{path}: two recordings have the id {recording.id!r}: {seen[recording.id].path} "
                f"and {recording.path}; rename one"
            )
        if not recording.transcript:
            raise UserError(f"{path}: the transcript of {recording.id!r} is empty")
        seen[recording.id] = recording
    if not seen:
        raise UserError(f"{path}: no recordings in it")
    return [seen[key] for key in sorted(seen)]


def read_text(path: Path) -> str:
    """A transcript file's text on one line."""
    try:
        return clean(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such transcript; write one, or remove its audio") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; convert it") from None


def clean(text: str) -> str:
    """Text with every run of white space made one space, and none at its ends."""
    return " ".join(text.split())


def _resolved(folder: str) -> str:
    return str(Path(folder).resolve())


def inside(
    root: Path, name: str, where: str | Path, resolved: Callable[[str], str] = _resolved
) -> Path:
    """`root / name`, refused where it leads outside `root`. `resolved` is asked for folders only.

    It works on text, for most of what reading a manifest takes goes here.
    """
    path = root / name
    try:
        text = os.path.join(root, name)
        folder, last = os.path.split(text)
        plain = last not in ("", ".", "..") and name.isprintable() and not os.path.islink(text)
        real = f"{resolved(folder)}/{last}" if plain else str(path.resolve())
        safe = real.startswith(f"{resolved(str(root)).rstrip('/')}/")
    except (ValueError, RuntimeError, OSError) as error:  # NUL bytes, loops of links
        raise UserError(
            f"{where}: {name!r} is no usable path ({error!r:.100}); rename it"
        ) from None
    if not safe:
        raise UserError(f"{where}: {name!r} leads outside {root}; move the file into the folder")
    return path


def _folder(root: Path) -> Iterator[Recording]:
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in audio.SUFFIXES or path.name.startswith("."):
            continue
        if not (path.is_file() or path.is_symlink()):
            continue
        name = path.relative_to(root).as_posix()
        inside(root, name, root)
        text = inside(root, path.with_suffix(".txt").relative_to(root).as_posix(), root)
        yield Recording(name[: -len(path.suffix)], path, read_text(text))


def _tsv(table: Path) -> Iterator[Recording]:
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise UserError(f"{table}: no such table") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table}: not a UTF-8 table with tabs ({error})") from None
    for number, row in rows:
        name, text = row.get("path"), row.get("transcript")
        if name is None or text is None:
            raise UserError(f"{table}: line {number}: needs the columns path and transcript")
        path = inside(table.parent, name, f"{table}: line {number}")
        speaker = row.get("speaker") or ""
        yield Recording(_id(path, table.parent), path, clean(text), speaker)


def _manifest(manifest: Path) -> Iterator[Recording]:
    for sample in read_manifest(manifest):
        yield Recording(sample.id, sample.wav, read_text(sample.txt), sample.speaker)


class Sample(NamedTuple):
    """An entry of a manifest. What follows `txt` is empty where another program wrote it.

    `index` is the index of the corpus, which the files belong to.
    """

    id: str
    wav: Path
    txt: Path
    speaker: str = ""
    wav_sha256: str = ""
    txt_sha256: str = ""
    index: str = ""


def read_manifest(manifest: str | Path) -> list[Sample]:
    """The samples of a deepspeech.pytorch manifest, ours or another's, in its order.

    A relative `root_path` is resolved against the manifest's own folder; ids that the manifest
    does not give are made from the paths. Whether the files exist is seen when they are read.
    """
    manifest = Path(manifest)
    data = read_json(manifest)
    entries = data.get("samples") if isinstance(data, dict) else None
    if not isinstance(entries, list) or not isinstance(data.get("root_path"), str):
        raise UserError(f"{manifest}: not a manifest (needs root_path and samples)")
    root = manifest.parent / data["root_path"]
    index = str(manifest.parent / str(data.get("index", "")))
    resolved = functools.lru_cache(_resolved)  # most files lie in the same few folders
    samples = []
    for number, entry in enumerate(entries):
        where = f"{manifest}: samples[{number}]"
        values = entry if isinstance(entry, dict) else {}
        if not all(isinstance(value, str) for value in values.values()):
            raise UserError(f"{where}: all values must be text")
        if not values.get("speaker", "").isprintable():
            raise UserError(f"{where}: the speaker has unprintable characters; rename it")
        wav, txt = values.get("wav_path"), values.get("transcript_path")
        if not wav or not txt:
            raise UserError(f"{where}: needs wav_path and transcript_path")
        extra = {key: values[key] for key in Sample._fields[3:-1] if key in values}
        extra["index"] = index
        paths = inside(root, wav, where, resolved), inside(root, txt, where, resolved)
        samples.append(Sample(values.get("id") or _id(paths[0], root), *paths, **extra))
        _check_id(samples[-1].id, where)
    return samples


def _check_id(name: str, where: str | Path) -> None:
    """Refuse an id that is no plain relative path: corpora are written under these names."""
    parts = name.split("/")
    if any(part in ("", ".", "..") or len(part.encode(errors="replace")) > 200 for part in parts):
        raise UserError(f"{where}: {name!r:.100} is no usable name of an utterance; rename it")
    if not name.isprintable():
        raise UserError(f"{where}: {name!r:.100} has unprintable characters; rename it")


def held_out(speakers: Iterable[str]) -> set[str]:
    """The speakers whose utterances are kept from training: every tenth by name, if not alone."""
    found = sorted(set(speakers))
    return set(found[::VAL_EVERY]) if len(found) > 1 else set()


def _id(path: Path, root: Path) -> str:
    return path.resolve().relative_to(root.resolve()).with_suffix("").as_posix()


def input_files(layout: str, path: str | Path) -> list[str]:
    """The files that a corpus at `path` is made from, for a workflow to watch.

    Those that a table or manifest names but that do not exist are left to `read` to complain of.
    """
    path = Path(path)
    if path.is_dir():
        wanted = (*audio.SUFFIXES, ".txt") if layout == "folder" else ("",)
        files = [file for file in path.rglob("*") if file.suffix.lower() in wanted or not wanted[0]]
    else:
        files = [path]
        if layout == "tsv":
            files += [recording.path for recording in _tsv(path)]
        elif layout == "manifest":
            files += [file for sample in read_manifest(path) for file in (sample.wav, sample.txt)]
    return sorted(str(file) for file in files if file.is_file() and str(file).isprintable())
