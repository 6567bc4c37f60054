"""Write when each word of a row's hypotheses was said, as a `ctm` file: id, channel 1, start and
duration in seconds, word, and confidence. Ids are those of the `trn` files, sorted as sclite wants.
"""

from __future__ import annotations

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, UserError, log
from deepspeech2.files import remedy, replacing
from deepspeech2.scoring import sclite
from deepspeech2.scoring import transcripts as transcripts_file


def main(
    transcripts: Input,
    transcripts_index: Input,
    ctm: Output,
) -> None:
    """Command line.

    transcripts: transcripts of a row, with times (JSON lines)
    transcripts_index: their index (JSON)
    ctm: file to write
    """
    entries = transcripts_file.read(transcripts, transcripts_index)
    sclite.require_plain(entries, "hypothesis", transcripts)
    if not all("words" in entry for entry in entries.values()):
        raise UserError(f"{transcripts}: tells no times of words; {remedy(transcripts_index)}")
    ids = zip(sclite.plain_ids(list(entries)), entries.values())
    lines = [
        f"{name} 1 {start:.3f} {end - start:.3f} {word} {confidence:.4f}\n"
        for name, entry in sorted(ids, key=lambda pair: pair[0])
        for word, start, end, confidence in entry["words"]
    ]
    with replacing(ctm) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    log.info("%d words", len(lines))


if __name__ == "__main__":
    cli.run(main)
