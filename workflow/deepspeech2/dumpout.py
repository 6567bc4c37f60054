"""Write posteriors as the guide's `dumpout` has them, for scripts that read it.

For the i-th utterance of the features (counted from 1, longest first) `data{i}_0.txt` has one line
of probabilities for each output frame, as many lines for every utterance as the longest needs, and
`data{i}_1.txt` the number of frames that are its own. Lines past those say blank.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deepspeech2 import posteriors_file, stage
from deepspeech2.files import read_json, replacing_folder
from deepspeech2.labels import BLANK
from deepspeech2.stage import log


def write(folder: Path, posteriors: str, index: str) -> int:
    """Fill `folder` from a file of posteriors and its index; returns the number of utterances."""
    data = read_json(index)
    count, longest = len(data["utterances"]), max(u["frames"] for u in data["utterances"])
    found = posteriors_file.read(posteriors, index)
    for number, (_, rows) in enumerate(stage.progress(found, count, "dumpout", "utterance"), 1):
        padded = np.zeros((longest, data["classes"]), np.float32)
        padded[len(rows) :, BLANK] = 1
        padded[: len(rows)] = rows
        np.savetxt(folder / f"data{number}_0.txt", padded, "%.9g")  # enough for float32
        (folder / f"data{number}_1.txt").write_text(f"{len(rows)}\n", encoding="ascii")
    return count


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--posteriors", required=True)
    parser.add_argument("--posteriors-index", required=True, help="their index (JSON)")
    parser.add_argument("--dumpout", required=True, help="folder to write")
    args = stage.parse(parser, argv)

    with replacing_folder(args.dumpout) as folder:
        count = write(folder, args.posteriors, args.posteriors_index)
    log.info("%d utterances", count)


if __name__ == "__main__":
    stage.run(main)
