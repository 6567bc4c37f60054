"""The file of posteriors: probabilities of all utterances, one after another, with an index.

`posteriors.bin` holds float32 rows of `classes` probabilities in C order. The index names the
utterances in the file's order, each with its output frames, and the SHA-256 of the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deepspeech2.cli import UserError
from deepspeech2.files import read_sealed, replacing, require_unaltered, write_json


def write(
    path: str | Path,
    index: str | Path,
    utterances: Iterator[tuple[str, np.ndarray]],
    run: dict,
) -> int:
    """Write posteriors (T', classes) by utterance id as they come; returns how many there were.

    `run` says what computed them and is kept in the index.
    """
    digest, entries, classes = hashlib.sha256(), [], None
    with replacing(path) as temporary, open(temporary, "wb") as file:
        for utterance, posteriors in utterances:
            if not np.isfinite(posteriors).all():
                raise UserError(
                    f"utterance {utterance}: the network's output holds NaN or infinity; "
                    "try another precision"
                )
            data = np.ascontiguousarray(posteriors, np.float32).tobytes()
            classes = posteriors.shape[1]
            digest.update(data)
            file.write(data)
            entries.append({"id": utterance, "frames": len(posteriors)})
    write_json(
        index,
        {"sha256": digest.hexdigest(), "classes": classes, "run": run, "utterances": entries},
    )
    return len(entries)


def read(path: str | Path, index: str | Path) -> Iterator[tuple[str, np.ndarray]]:
    """Utterance ids and posteriors (T', classes) float32, one at a time, after a hash check."""
    data = read_sealed(index)
    require_unaltered(path, data["sha256"], index)
    classes = data["classes"]
    with open(path, "rb") as file:
        for entry in data["utterances"]:
            numbers = np.fromfile(file, np.float32, entry["frames"] * classes)
            yield entry["id"], numbers.reshape(-1, classes)
