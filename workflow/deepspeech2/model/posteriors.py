"""The file of posteriors: probabilities of all utterances, one after another, with an index.

`posteriors.bin` holds float32 rows of `classes` probabilities in C order. The index names the
utterances in the file's order, each with its output frames, and the SHA-256 of the file. Where a
dataset was computed in shards there are several files, one after another.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
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
    whole = {"sha256": digest.hexdigest(), "utterances": len(entries)}
    content = {"files": [whole], "classes": classes, "run": run, "utterances": entries}
    write_json(index, content)
    return len(entries)


def read(path: str | Path | Sequence[Path], index: str | Path) -> Iterator[tuple[str, np.ndarray]]:
    """Utterance ids and posteriors (T', classes) float32, one at a time, after a hash check.

    `path` is the file that the index is of, or the files of shards in their order.
    """
    paths = [path] if isinstance(path, (str, Path)) else path
    data = read_sealed(index)
    classes, entries = data["classes"], iter(data["utterances"])
    if len(paths) != len(data["files"]):
        raise UserError(f"{index}: it is of {len(data['files'])} files, not {len(paths)}")
    for file_path, whole in zip(paths, data["files"]):
        require_unaltered(file_path, whole["sha256"], index)
        with open(file_path, "rb") as file:
            for entry in itertools.islice(entries, whole["utterances"]):
                numbers = np.fromfile(file, np.float32, entry["frames"] * classes)
                yield entry["id"], numbers.reshape(-1, classes)
