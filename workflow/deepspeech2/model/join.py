"""Write the index of a dataset's posteriors that were computed in shards.

The files of the shards stay where they are: the index says how many utterances each has, and its
hash. All must have been computed by the same code with the same settings.
"""

from __future__ import annotations

from pathlib import Path

from deepspeech2 import cli, files
from deepspeech2.cli import Input, Output, UserError, log
from deepspeech2.features import parts as shards

OWN = ("features_sha256",)  # what each shard has of its own
PLACES = ("node", "cpu", "device")  # and what may differ between them


def joined(indexes: list[Path], features_index: Path) -> dict:
    """The index of shards' posteriors together, from their indexes in order.

    Raises `UserError` where they are not of one kind, or not of exactly these features'
    utterances in their order.
    """
    parts = [files.read_sealed(path) for path in indexes]
    run = dict(parts[0]["run"], features_sha256=files.sha256(features_index))
    for path, part in zip(indexes, parts):
        for key in {**run, **part["run"]}:
            if key in OWN or run.get(key) == part["run"].get(key):
                continue
            if key not in PLACES:
                raise UserError(
                    f"{path}: its {key} {part['run'].get(key)!r:.200} is not that of {indexes[0]}; "
                    f"{files.remedy(path)}"
                )
            run[key] = ", ".join(sorted({str(found["run"].get(key)) for found in parts}))
    found = [utterance for part in parts for utterance in part["utterances"]]
    shards.require_all([u["id"] for u in found], features_index, features_index)
    return {
        "files": [whole for part in parts for whole in part["files"]],
        "classes": parts[0]["classes"],
        "run": run,
        "utterances": found,
    }


def main(parts_indexes: list[Input], features_index: Input, index: Output) -> None:
    """Command line.

    parts_indexes: indexes of the shards' posteriors, in order (JSON)
    features_index: index of all utterances (JSON)
    index: index to write (JSON)
    """
    found = joined(parts_indexes, features_index)
    files.write_json(index, found)
    log.info("%d utterances in %d shards", len(found["utterances"]), len(parts_indexes))


if __name__ == "__main__":
    cli.run(main)
