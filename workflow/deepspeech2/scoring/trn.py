"""Write a row's references and hypotheses as sclite's `trn` files, for anybody to score again.

    sclite -i rm -r ref.trn trn -h hyp.trn trn

An utterance's id stands in brackets behind its text. In ids, what sclite or a shell would take for
more is an underscore; the speaker is what stands before the first dash or underscore.
"""

from __future__ import annotations

import re

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, UserError, log
from deepspeech2.files import replacing
from deepspeech2.scoring import transcripts as transcripts_file

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


def main(
    transcripts: Input,
    transcripts_index: Input,
    references: Output,
    hypotheses: Output,
) -> None:
    """Command line.

    transcripts: transcripts of a row (JSON lines)
    transcripts_index: their index (JSON)
    references: trn file to write
    hypotheses: trn file to write
    """
    entries = transcripts_file.read(transcripts, transcripts_index)
    ids = plain_ids(list(entries))
    for path, side in ((references, "reference"), (hypotheses, "hypothesis")):
        for name, entry in entries.items():
            found = MARKUP.search(entry[side])
            if found:
                raise UserError(
                    f"{transcripts}: utterance {name!r}: sclite takes {found[0]!r} for markup, so "
                    "it cannot score these texts"
                )
        with replacing(path) as temporary:
            lines = (f"{e[side]} ({name})\n" for name, e in zip(ids, entries.values()))
            temporary.write_text("".join(lines), encoding="utf-8")
    log.info("%d utterances", len(ids))


if __name__ == "__main__":
    cli.run(main)
