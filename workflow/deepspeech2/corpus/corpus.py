"""Make a corpus: audio and transcripts of a dataset in one checked, uniform folder.

Reads a corpus in one of the layouts and writes `wav/<id>.wav` (16 kHz, mono) and `txt/<id>.txt`,
with an index of every file's SHA-256. What cannot be read or makes no sense stops it with one line,
or is left out and counted where the user allows it.
With a table of PCM hashes, the corpus must have exactly its utterances, samples and transcripts.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.io import wavfile

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, Settings, UserError, log
from deepspeech2.corpus import archives, audio, layouts, numbers, tables
from deepspeech2.corpus.labels import read as read_labels
from deepspeech2.corpus.perturb import Perturbation, perturbed
from deepspeech2.corpus.text import CASES, inside
from deepspeech2.corpus.utterance import Utterance
from deepspeech2.files import replacing_folder, sha256, sha256_bytes, unchanged, write_json

COLUMNS = ("id", "split", "pcm_sha256", "transcript")  # of a table of PCM hashes


class Identity:
    """What identifies a corpus: SHA-256 of each utterance's samples (little-endian int16).

    Made from a table (TSV) with COLUMNS, or from None, which any corpus matches.
    """

    def __init__(self, table: Path | None):
        self.table = table
        self.rows: dict[str, dict[str, str]] = {}
        if table is None:
            return
        self.rows = {row["id"]: row for _, row in tables.rows(table, COLUMNS, "\t", quoted=False)}

    def check_samples(self, name: str, sound: audio.Audio, where: Path) -> None:
        """Refuse an utterance that the table lacks, or has with other samples."""
        if self.table is None:
            return
        if name not in self.rows:
            raise UserError(f"{where}: utterance {name} is not in {self.table}")
        if sound.samples.dtype != np.int16:
            raise UserError(
                f"{where}: utterance {name}: only 16-bit samples of 16 kHz have the "
                f"hashes of {self.table}"
            )
        if sha256_bytes(sound.samples.astype("<i2").tobytes()) != self.rows[name]["pcm_sha256"]:
            raise UserError(
                f"{where}: utterance {name}: samples differ from those of {self.table} (SHA-256 of "
                "the PCM); fetch the corpus again"
            )

    def check(self, utterances: list[Utterance], parts: dict[str, str], where: Path) -> None:
        """Refuse a corpus that lacks utterances of the table, or has other parts or transcripts."""
        lacking = sorted(set(self.rows) - {utterance.id for utterance in utterances})
        if lacking:
            raise UserError(
                f"{where}: {len(lacking)} of {len(self.rows)} utterances are missing, the first is "
                f"{lacking[0]}; fetch the corpus again"
            )
        for utterance in utterances if self.rows else ():
            row, part = self.rows[utterance.id], parts[utterance.id]
            if row["split"] != ("train" if part == "val" else part):
                raise UserError(
                    f"{where}: utterance {utterance.id} is in the part {part}, but in "
                    f"{row['split']} in {self.table}"
                )
            if row["transcript"] != utterance.text:
                raise UserError(
                    f"{where}: utterance {utterance.id}: transcript {utterance.text!r} differs "
                    f"from the tracked {row['transcript']!r}; fetch the corpus again"
                )


def write(
    layout: layouts.Layout,
    folder: Path,
    text_case: str,
    identity: Identity,
    spell: Callable[[str], str] = str,
    worse: Perturbation | None = None,
) -> list[dict]:
    """Fill `folder` with the corpus and return its index entries, sorted by id.

    `spell` makes words of the numbers in texts, `worse` says what is done to the recordings.
    """
    notes: dict[str, list[str]] = {}
    with cli.progress(None, what="corpus", unit="utterance") as bar:

        def keep(name: str, sound: audio.Audio) -> None:
            identity.check_samples(name, sound, layout.source)
            if worse:
                changed = perturbed(sound.samples, name, worse)
                sound = audio.Audio(changed, [*sound.notes, worse.words()])
            path = folder / "wav" / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            # libsndfile puts the time of day into a float WAV; equal input gives equal bytes here.
            wavfile.write(str(path), audio.SAMPLE_RATE, sound.samples)
            notes[name] = sound.notes
            for note in sound.notes:
                log.info("%s: %s", name, note)
            bar.update()

        utterances = layout.read(keep)
    for name in notes.keys() - {utterance.id for utterance in utterances}:
        (folder / "wav" / f"{name}.wav").unlink()  # its text turned out to be missing
    parts = layout.parts_of(utterances)
    identity.check(utterances, parts, layout.source)
    entries = []
    for utterance in sorted(utterances):
        said = spell(utterance.text)
        transcript = CASES[text_case](said)
        told = [*notes[utterance.id], *([numbers.NOTE] if said != utterance.text else [])]
        txt = folder / "txt" / f"{utterance.id}.txt"
        txt.parent.mkdir(parents=True, exist_ok=True)
        txt.write_text(transcript + "\n", encoding="utf-8")
        entries.append(
            {
                "id": utterance.id,
                "split": parts[utterance.id],
                "speaker": utterance.speaker,
                "transcript": transcript,
                "wav_sha256": sha256(folder / "wav" / f"{utterance.id}.wav"),
                "txt_sha256": sha256(txt),
                **({"notes": told} if told else {}),
            }
        )
    return entries


def opened(source: Path, layout: str, within: str | None, scratch: Path) -> Path:
    """The corpus as its layout reads it: an archive is unpacked to the folder `scratch`.

    `within` is the corpus's place in an archive.
    """
    packed = source.is_file() and not layouts.reads_archives(layout)
    if not (packed and archives.is_archive(source)):
        if within:
            raise UserError(f"{source}: not an archive that is unpacked; set no `within`")
        return source
    scratch.mkdir()
    root = archives.unpack(source, scratch)
    if not within:
        return root
    found = inside(scratch, within, f"{source}: within")
    if not found.exists():
        held = ", ".join(sorted(path.name for path in scratch.iterdir()))
        raise UserError(f"{source}: within: no {within!r} in it; it holds {held:.200}")
    return found


def main(
    layout: Literal[(layouts.AUTO, *layouts.LAYOUTS)],
    source: Path,
    within: str | None,
    rules: Settings | None,
    text_case: Literal[tuple(CASES)],
    labels: Input,
    pcm_sha256: Input | None,
    corpus: Output,
    index: Output,
    labels_copy: Output,
    digits: Literal["error", "words"] = "error",
    perturb: Settings | None = None,
) -> None:
    """Command line.

    layout: how the corpus is held; auto takes the layout that claims it
    source: its archive, folder, table or manifest
    within: where it is in an archive; without, the one folder that holds all
    rules: what may be left out, and what else layouts.Rules has (JSON)
    text_case: what to do to the letters of the transcripts
    labels: the characters of its transcripts, the blank first (JSON)
    pcm_sha256: table of hashes that its audio must match (TSV)
    corpus: folder to write
    index: index to write (JSON)
    labels_copy: copy of the labels to write (JSON)
    digits: words: spell numbers as words; error: leave them, which later stages refuse
    perturb: what is done to its recordings (JSON, as perturb.Perturbation has it)
    """
    alphabet = read_labels(labels)
    upper = "A" in alphabet and "a" not in alphabet
    spell = functools.partial(numbers.spelled, upper=upper) if digits == "words" else str
    identity = Identity(pcm_sha256)
    name = layouts.find(source) if layout == layouts.AUTO else layout
    with replacing_folder(corpus) as folder:
        scratch = folder / "archive"
        try:
            of = layouts.Rules(**(rules or {}))
            with unchanged(lambda: layouts.watched(name, source, of)):
                place = opened(source, name, within, scratch)
                held = layouts.create(name, place, of)
                worse = Perturbation(**perturb) if perturb else None
                utterances = write(held, folder, text_case, identity, spell, worse)
            mark = held.claims(place) or "whose marks it lacks"
        except UserError as error:
            text = f"{error}{layouts.advice(source, name)}".replace(f"{scratch}/", f"{source}: ")
            unsaid = "; set `within`" if str(scratch) in text and not within else ""
            raise UserError(text.replace(str(scratch), str(source)) + unsaid) from None
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            name = os.path.relpath(error.filename, folder)
            raise UserError(f"{source}: {name!r} is of one ID and of others; rename one") from None
        shutil.rmtree(scratch, ignore_errors=True)
    for reason, found in held.passed_over.items():
        for where in found:
            log.info("passed over (%s): %s", reason, where.replace(f"{scratch}/", ""))
    notes = Counter(note for utterance in utterances for note in utterance.get("notes", ()))
    content = {
        "layout": name,
        "passed_over": {reason: len(found) for reason, found in sorted(held.passed_over.items())},
        "notes": dict(sorted(notes.items())),
        "utterances": utterances,
    }
    write_json(index, content)
    write_json(labels_copy, alphabet)
    log.info("%d utterances from %s, layout %s (%s)", len(utterances), source, name, mark)


if __name__ == "__main__":
    cli.run(main)
