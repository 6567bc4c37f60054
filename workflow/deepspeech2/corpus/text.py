"""Transcripts, how they are read and cleaned, and paths that must not leave their folder."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

from deepspeech2.cli import UserError

CASES = {"keep": str, "upper": str.upper, "lower": str.lower}


def read_text(path: Path) -> str:
    """A transcript file's text on one line."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise UserError(f"{path}: not a file; write a transcript, or remove its audio")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such transcript; write one, or remove its audio") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; convert it") from None
    if "\0" in text:
        raise UserError(f"{path}: NUL bytes, as of UTF-16; save it as UTF-8")
    return clean(text)


def clean(text: str) -> str:
    """Text with every run of white space made one space, and none at its ends."""
    return " ".join(text.split())


def resolved(folder: str) -> str:
    """The folder's own path, links followed."""
    return str(Path(folder).resolve())


def inside(
    root: Path,
    name: str,
    where: str | Path,
    resolved: Callable[[str], str] = resolved,
    outside: bool = False,
) -> Path:
    """`root / name`, refused where it leads outside `root`, unless `outside` allows it.

    `resolved` is asked for folders only. It works on text, for most of what reading a manifest
    takes goes here.
    """
    if not name:
        raise UserError(f"{where}: names no file; correct it")
    text = os.path.join(root, name)
    for form in ("NFC", "NFD"):  # a name may be written otherwise than on the disk
        if not name.isascii() and not os.path.lexists(text):
            other = os.path.join(root, unicodedata.normalize(form, name))
            text = other if os.path.lexists(other) else text
    path = Path(text)
    try:
        folder, last = os.path.split(text)
        plain = last not in ("", ".", "..") and name.isprintable() and not os.path.islink(text)
        real = f"{resolved(folder)}/{last}" if plain else str(path.resolve())
        safe = real.startswith(f"{resolved(str(root)).rstrip('/')}/")
    except (ValueError, RuntimeError, OSError) as error:  # NUL bytes, loops of links
        raise UserError(f"{where}: {name!r}: invalid path ({error!r:.100}); rename it") from None
    if not (safe or outside):
        raise UserError(
            f"{where}: {name!r} leads outside {root}; move the file into the folder, or set "
            "allow_outside: true"
        )
    return path


def id_of(path: Path, root: Path, resolved: Callable[[str], str] = resolved) -> str:
    """An utterance's id: its recording's path under `root` without suffix.

    Where a link leads outside it is the link's path, and the whole path where that is outside, too.
    `resolved` is asked for folders only.
    """
    folder, last = os.path.split(path)
    if last not in ("", ".", "..") and not os.path.islink(path):
        # As below, by text: a set may have a hundred thousand.
        real, base = f"{resolved(folder)}/{last}", f"{resolved(str(root)).rstrip('/')}/"
        if real.startswith(base):
            stem, suffix = os.path.splitext(real.removeprefix(base))
            return stem if len(suffix) > 1 else stem + suffix
    for found, base in (
        (path.resolve(), root.resolve()),
        (Path(os.path.abspath(path)), Path(os.path.abspath(root))),
    ):
        if base in found.parents:
            return found.relative_to(base).with_suffix("").as_posix()
    return found.with_suffix("").as_posix().lstrip("/")
