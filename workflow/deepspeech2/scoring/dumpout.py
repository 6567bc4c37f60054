"""Write posteriors as the guide's `dumpout` has them, for its own scripts.

For the i-th utterance of the features (counted from 1, longest first) `data{i}_0.txt` has one line
of probabilities for each output frame, as many lines for every utterance as the longest needs, and
`data{i}_1.txt` the number of frames that are its own. Every number is followed by a space, as the
guide's postprocess needs. Lines past an utterance's end say blank.
"""

from __future__ import annotations

import numpy as np

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, log
from deepspeech2.corpus.labels import BLANK
from deepspeech2.files import read_sealed, replacing_folder
from deepspeech2.model import posteriors as posteriors_file


def main(
    posteriors: list[Input],
    posteriors_index: Input,
    dumpout: Output,
) -> None:
    """Command line.

    posteriors: posteriors of all utterances, one file or its shards' in order
    posteriors_index: their index (JSON)
    dumpout: folder to write
    """
    data = read_sealed(posteriors_index)
    count, longest = len(data["utterances"]), max(u["frames"] for u in data["utterances"])
    found = posteriors_file.read(posteriors, posteriors_index)
    with replacing_folder(dumpout) as folder:
        for number, (_, rows) in enumerate(cli.progress(found, count, "dumpout", "utterance"), 1):
            padded = np.zeros((longest, data["classes"]), np.float32)
            padded[len(rows) :, BLANK] = 1
            padded[: len(rows)] = rows
            # Nine digits are enough for float32.
            np.savetxt(folder / f"data{number}_0.txt", padded, "%.9g", newline=" \n")
            (folder / f"data{number}_1.txt").write_text(f"{len(rows)} ", encoding="ascii")
    log.info("%d utterances", count)


if __name__ == "__main__":
    cli.run(main)
