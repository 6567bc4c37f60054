"""What sclite reads: ids, and texts without its markup."""

from __future__ import annotations

import re
from pathlib import Path

from deepspeech2.cli import UserError

MARKUP = re.compile(r"[(){}@/<>;]")  # alternatives, optional words, tags, comments


def plain_ids(names: list[str]) -> list[str]:
    """Ids that sclite reads, each only once, in the order of the names."""
    found: dict[str, None] = {}
    for name in names:
        plain = base = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
        number = 1
        while plain in found:
            number += 1
            plain = f"{base}_{number}"
        found[plain] = None
    return list(found)


def require_plain(entries: dict[str, dict], side: str, path: Path) -> None:
    """Refuse transcripts of `path` whose texts on one side sclite would take for more."""
    for name, entry in entries.items():
        found = MARKUP.search(entry[side])
        if found:
            raise UserError(
                f"{path}: utterance {name!r}: sclite takes {found[0]!r} for markup, so "
                "it cannot score these texts"
            )
