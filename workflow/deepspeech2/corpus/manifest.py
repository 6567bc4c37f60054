"""Write the deepspeech.pytorch manifest of one split of a corpus.

The manifest is JSON with `root_path` and `samples`, each with `wav_path` and `transcript_path`.
The root is relative to the manifest's own folder, so that the tree can be moved. Each sample also
carries its id, speaker and the SHA-256 of its files, and the manifest names the corpus's index;
deepspeech.pytorch ignores them.
"""

from __future__ import annotations

import csv
import functools
import os
import re
from pathlib import Path
from typing import Literal, NamedTuple

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, UserError, log
from deepspeech2.corpus import tables
from deepspeech2.corpus.text import id_of, inside, read_text, resolved
from deepspeech2.corpus.utterance import Utterance, check_id
from deepspeech2.files import (
    SEAL,
    read_json,
    read_sealed,
    remedy,
    require_sealed,
    require_unaltered,
    write_json,
)

SPLITS = ("train", "val", "test", "all")
TABLE = ".csv"  # the suffix of V1's and V2's manifests
PAIR = re.compile(rb"[^\r\n]+,[^\r\n,]+\.txt[\"\s]*(\n|$)")  # their first line
KEYS = ("wav_path", "transcript_path", "id", "speaker", "wav_sha256", "txt_sha256")


class Sample(NamedTuple):
    """An entry of a manifest: an utterance whose text is in a file of its own.

    Hashes are empty where another program wrote the manifest. `index` is that of the corpus.
    """

    utterance: Utterance
    transcript: Path
    audio_sha256: str
    transcript_sha256: str
    index: str

    def require_unaltered(self) -> None:
        """Refuse files with other hashes than the manifest's."""
        for path, expected in (
            (self.utterance.audio, self.audio_sha256),
            (self.transcript, self.transcript_sha256),
        ):
            if expected:
                require_unaltered(path, expected, self.index)

    def read(self, empty: bool = False) -> Utterance:
        """The utterance with its text.

        Raises `UserError` where a file is altered, or the text empty and `empty` does not allow it.
        """
        self.require_unaltered()
        text = read_text(self.transcript)
        if not (text or empty):
            raise UserError(
                f"{self.transcript}: the transcript is empty; write one, or remove its audio"
            )
        return self.utterance._replace(text=text)


def read(manifest: str | Path, outside: bool = False) -> list[Sample]:
    """The samples of a deepspeech.pytorch manifest, ours or another's, in its order.

    V1's and V2's are CSV, a recording and its transcript on each line. A relative `root_path` is
    resolved against the manifest's own folder; ids that the manifest does not give are made from
    the paths. `outside` allows paths that lead out of the root. Whether the files exist is seen
    when they are read.
    """
    manifest = Path(manifest)
    data = _of_table(manifest) if manifest.suffix == TABLE else read_json(manifest)
    if isinstance(data, dict) and SEAL in data:
        require_sealed(data, manifest, remedy(manifest))
    entries = data.get("samples") if isinstance(data, dict) else None
    if not isinstance(entries, list) or not isinstance(data.get("root_path"), str):
        raise UserError(f"{manifest}: not a manifest (needs root_path and samples)")
    root = manifest.parent / data["root_path"]
    index = str(manifest.parent / str(data.get("index", "")))
    folders = functools.lru_cache(resolved)  # most files lie in the same few folders
    samples = []
    for number, entry in enumerate(entries):
        where = f"{manifest}: samples[{number}]"
        given = entry if isinstance(entry, dict) else {}
        values = {key: given[key] for key in KEYS if given.get(key) is not None}
        for key, value in values.items():
            if not isinstance(value, str):
                raise UserError(f"{where}: {key}: {value!r:.100} must be text")
        if given.get("offset"):
            raise UserError(
                f"{where}: offset: a manifest's recordings are read whole; cut them, or use a "
                "layout with segments"
            )
        speaker = values.get("speaker", "")
        if not speaker.isprintable():
            raise UserError(f"{where}: the speaker has unprintable characters; rename it")
        wav, txt = values.get("wav_path"), values.get("transcript_path")
        if not wav or not txt:
            raise UserError(f"{where}: needs wav_path and transcript_path")
        audio, transcript = (inside(root, name, where, folders, outside) for name in (wav, txt))
        utterance = Utterance(
            values.get("id") or id_of(audio, root, folders), str(audio), speaker=speaker
        )
        check_id(utterance.id, where)
        hashes = (values.get(key, "") for key in ("wav_sha256", "txt_sha256"))
        samples.append(Sample(utterance, transcript, *hashes, index))
    return samples


def _of_table(manifest: Path) -> dict:
    """V1's and V2's manifest as if it were V3's."""
    samples = []
    for number, line in tables.lines(manifest):
        try:
            wav, txt = tables.Dialect(",", True).cells(line)
        except (csv.Error, ValueError):
            raise UserError(
                f"{manifest}: line {number}: not a recording and a transcript's file"
            ) from None
        samples.append({"wav_path": wav, "transcript_path": txt})
    return {"root_path": "", "samples": samples}


def main(
    index: Input,
    corpus: Input,
    split: Literal[SPLITS],
    manifest: Output,
) -> None:
    """Command line.

    index: the corpus's index (JSON)
    corpus: the corpus's folder
    split: part of the corpus to list
    manifest: manifest to write (JSON)
    """
    samples = []
    utterances = read_sealed(index)["utterances"]
    for utterance in utterances:
        if split not in ("all", utterance["split"]):
            continue
        names = (f"wav/{utterance['id']}.wav", f"txt/{utterance['id']}.txt")
        for name in names:
            if not (corpus / name).exists():
                raise UserError(f"{corpus}/{name}: missing; {remedy(index)}")
        samples.append(
            {
                "wav_path": names[0],
                "transcript_path": names[1],
                **{key: utterance[key] for key in ("id", "speaker", "wav_sha256", "txt_sha256")},
            }
        )
    if not samples:
        hint = "; it has only one speaker" if split == "val" and len(utterances) > 1 else ""
        raise UserError(
            f"{index}: no utterance belongs to the split {split!r}{hint}; choose another split, or "
            "for training other datasets"
        )
    root, index_name = (os.path.relpath(path, manifest.parent) for path in (corpus, index))
    write_json(manifest, {"root_path": root, "index": index_name, "samples": samples})
    log.info("%d utterances in the split %s", len(samples), split)


if __name__ == "__main__":
    cli.run(main)
