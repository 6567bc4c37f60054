"""Put the transcripts of a dataset's shards together: what decoding it as a whole would write.

They must be of exactly the dataset's utterances, by the same decoder.
"""

from __future__ import annotations

import json
from pathlib import Path

from deepspeech2 import cli, files
from deepspeech2.cli import Input, Output, UserError, log
from deepspeech2.features.parts import require_all


def copy(parts: list[Path], indexes: list[Path], target: Path) -> tuple[list[str], dict]:
    """Write the lines of all parts to `target`; returns their ids, and the index of all."""
    names, first = [], None
    with open(target, "wb") as file:
        for path, index in zip(parts, indexes):
            about = files.read_sealed(index)
            files.require_unaltered(path, about["sha256"], index)
            first = first or about
            for key in ("decoder", "language_model", "tuning"):
                if about[key] != first[key]:
                    raise UserError(
                        f"{index}: its {key} is not that of {indexes[0]}; {files.remedy(index)}"
                    )
            with open(path, "rb") as lines:
                for line in lines:
                    names.append(json.loads(line)["id"])
                    file.write(line)
    return names, first


def main(
    parts: list[Input],
    parts_indexes: list[Input],
    features_index: Input,
    transcripts: Output,
    index: Output,
) -> None:
    """Command line.

    parts: the shards' transcripts, in order (JSON lines)
    parts_indexes: their indexes (JSON)
    features_index: index of all utterances (JSON)
    transcripts: transcripts to write (JSON lines)
    index: their index to write (JSON)
    """
    with files.replacing(transcripts) as temporary:
        names, about = copy(parts, parts_indexes, temporary)
        require_all(names, features_index, index)
        digest = files.sha256(temporary)
    files.write_json(index, {**about, "sha256": digest, "utterances": len(names)})
    log.info("%d utterances from %d shards", len(names), len(parts))


if __name__ == "__main__":
    cli.run(main)
