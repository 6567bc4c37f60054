"""Write the deepspeech.pytorch manifest of one split of a corpus.

The manifest is JSON with `root_path` and `samples`, each with `wav_path` and `transcript_path`.
The root is relative to the manifest's own folder, so that the tree can be moved. Each sample also
carries its id, speaker and the SHA-256 of its files, and the manifest names the corpus's index;
deepspeech.pytorch ignores them. A corpus without parts of its own gets the parts train and val,
by speakers.
"""

from __future__ import annotations

import os
from pathlib import Path

from deepspeech2 import recordings, stage
from deepspeech2.files import read_json, remedy, write_json
from deepspeech2.stage import UserError, log

SPLITS = ("train", "val", "test", "all")


def write(index: str, corpus: str, split: str, path: str) -> int:
    """Write the manifest of `split` to `path`; returns its number of utterances."""
    samples = []
    utterances = read_json(index)["utterances"]
    held_out = set()
    if not any(utterance["split"] for utterance in utterances):
        held_out = recordings.held_out(u["speaker"] or u["id"] for u in utterances)
    for utterance in utterances:
        part = utterance["split"] or _part(utterance, held_out)
        if split not in ("all", part):
            continue
        names = (f"wav/{utterance['id']}.wav", f"txt/{utterance['id']}.txt")
        for name in names:
            if not (Path(corpus) / name).exists():
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
    root, index = (os.path.relpath(name, Path(path).parent) for name in (corpus, index))
    write_json(path, {"root_path": root, "index": index, "samples": samples})
    return len(samples)


def _part(utterance: dict, held_out: set[str]) -> str:
    return "val" if (utterance["speaker"] or utterance["id"]) in held_out else "train"


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--index", required=True, help="the corpus's index (JSON)")
    parser.add_argument("--corpus", required=True, help="the corpus's folder")
    parser.add_argument("--split", choices=SPLITS, required=True)
    parser.add_argument("--manifest", required=True, help="manifest to write (JSON)")
    args = stage.parse(parser, argv)
    count = write(args.index, args.corpus, args.split, args.manifest)
    log.info("%d utterances in the split %s", count, args.split)


if __name__ == "__main__":
    stage.run(main)
