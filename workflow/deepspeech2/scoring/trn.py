"""Write a row's references and hypotheses as sclite's `trn` files, for anybody to score again.

    sclite -i rm -r ref.trn trn -h hyp.trn trn

An utterance's id stands in brackets behind its text. In ids, what sclite or a shell would take for
more is an underscore; the speaker is what stands before the first dash or underscore.
"""

from __future__ import annotations

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, log
from deepspeech2.files import replacing
from deepspeech2.scoring import sclite
from deepspeech2.scoring import transcripts as transcripts_file


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
    ids = sclite.plain_ids(list(entries))
    for path, side in ((references, "reference"), (hypotheses, "hypothesis")):
        sclite.require_plain(entries, side, transcripts)
        with replacing(path) as temporary:
            lines = (f"{e[side]} ({name})\n" for name, e in zip(ids, entries.values()))
            temporary.write_text("".join(lines), encoding="utf-8")
    log.info("%d utterances", len(ids))


if __name__ == "__main__":
    cli.run(main)
