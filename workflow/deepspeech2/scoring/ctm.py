"""Write when each word of a row was said, as `ctm` files: id, channel 1, start and duration in
seconds, word, and confidence. Ids are those of the `trn` files, sorted as sclite wants.

Words of the hypotheses are where the decoder heard them, those of the references where the same
posteriors have them on the most probable path of that text (forced alignment).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, UserError, log
from deepspeech2.files import read_sealed, remedy, replacing
from deepspeech2.model import posteriors as posteriors_file
from deepspeech2.scoring import forced, sclite, times
from deepspeech2.scoring import transcripts as transcripts_file


def write(path: Path, names: Iterable[str], entries: Iterable[Sequence[Sequence]]) -> None:
    """Write the words (text, start, end, confidence) of utterances, by their plain ids."""
    lines = [
        f"{name} 1 {start:.3f} {end - start:.3f} {word} {confidence:.4f}\n"
        for name, words in sorted(zip(names, entries), key=lambda pair: pair[0])
        for word, start, end, confidence in words
    ]
    with replacing(path) as temporary:
        temporary.write_text("".join(lines) or ";; no words\n", encoding="utf-8")
    log.info("%s: %d words", path.name, len(lines))


def main(
    transcripts: Input,
    transcripts_index: Input,
    posteriors: list[Input],
    posteriors_index: Input,
    features_index: Input,
    ctm: Output,
    references: Output,
) -> None:
    """Command line.

    transcripts: transcripts of a row, with times (JSON lines)
    transcripts_index: their index (JSON)
    posteriors: the row's posteriors, one file or its shards' in order
    posteriors_index: their index (JSON)
    features_index: index of the features, for labels and lengths (JSON)
    ctm: hypotheses' words, to write
    references: references' words, to write
    """
    entries = transcripts_file.read(transcripts, transcripts_index)
    for side in ("hypothesis", "reference"):
        sclite.require_plain(entries, side, transcripts)
    if not all("words" in entry for entry in entries.values()):
        raise UserError(f"{transcripts}: tells no times of words; {remedy(transcripts_index)}")
    names = dict(zip(entries, sclite.plain_ids(list(entries))))
    write(ctm, names.values(), (entry["words"] for entry in entries.values()))
    features = read_sealed(features_index)
    alphabet = features["labels"]
    frame = times.seconds_per_frame(features["spectrogram"]["window_stride"])
    known = {utterance["id"]: utterance for utterance in features["utterances"]}
    found = {}
    for name, probabilities in posteriors_file.read(posteriors, posteriors_index):
        if name not in known or name not in names:
            raise UserError(
                f"{posteriors_index}: utterance {name!r} is not in these features or transcripts; "
                f"{remedy(posteriors_index)}"
            )
        targets = [alphabet.index(letter) for letter in known[name]["reference"]]
        try:
            decoded = forced.decode(probabilities, targets, alphabet)
        except ValueError:
            log.warning("%s: has too few frames for its reference; left out", name)
            continue
        found[names[name]] = times.words(decoded, frame, known[name]["seconds"])
    write(references, found, found.values())


if __name__ == "__main__":
    cli.run(main)
