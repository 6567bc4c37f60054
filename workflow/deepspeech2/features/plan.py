"""Look at the utterances of a split, without making features: what its shards are cut from.

Writes the index that features have, without hashes of files. Everything of a dataset as a whole is
read from it: the shapes to compile for, what is scored, and which utterances are in which shard.
"""

from __future__ import annotations

from typing import Literal

from deepspeech2 import cli, files
from deepspeech2.cli import CORES, Cores, Input, Output, log
from deepspeech2.features import parts
from deepspeech2.features.measure import CHUNK, index_of, jobs_of, measure_all, read_settings


def main(
    manifest: Input,
    model: Input,
    labels: Input,
    index: Output,
    shards: int,
    unknown_characters: Literal["error", "drop"] = "error",
    empty_references: Literal["error", "score"] = "error",
    processes: Cores = CORES,
) -> None:
    """Command line.

    manifest: manifest of the split (JSON)
    model: the model's description (JSON)
    labels: the dataset's labels (JSON)
    index: index to write (JSON)
    shards: parts that it will be cut into
    unknown_characters: error: stop at characters outside the labels; drop: remove them
    empty_references: error: stop at transcripts that are empty; score: keep them
    processes: processes that share the work
    """
    settings = read_settings(model, labels, unknown_characters, empty_references)
    with cli.pool(processes) as pool:
        measured = measure_all(jobs_of(manifest, settings), pool, CHUNK)
    found = index_of(manifest, settings, measured)
    cut = parts.cut(found["utterances"], shards)
    files.write_json(index, found)
    for name, part in zip(parts.shard_names(shards), cut):
        seconds = sum(found["utterances"][position]["seconds"] for position in part)
        log.info("shard %s: %d utterances, %.0f s", name, len(part), seconds)


if __name__ == "__main__":
    cli.run(main)
