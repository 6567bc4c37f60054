"""Time a decoder on one core, over posteriors that are at hand: what it takes besides the network.

All utterances are decoded again and again, whole, for half a second or more, after a first time
that does not count. The plain network's posteriors are taken: what an engine changes of them
changes no time.
"""

from __future__ import annotations

import time

import numpy as np

from deepspeech2 import cli, files, machine, node
from deepspeech2.cli import Input, Output, log
from deepspeech2.model import posteriors as posteriors_file
from deepspeech2.scoring import arpa, decoders, tuned

LEAST_SECONDS = 0.5
MOST = 1000  # utterances, evenly spread over all
RUNS = 3  # at least


def main(
    posteriors: Input,
    posteriors_index: Input,
    features_index: Input,
    decoder: decoders.Settings,
    language_model_index: Input | None,
    tuning: Input | None,
    decoding_time: Output,
) -> None:
    """Command line.

    posteriors: posteriors of all utterances
    posteriors_index: their index (JSON)
    features_index: index of the features, for the labels (JSON)
    decoder: how posteriors become text: JSON with kind and options
    language_model_index: index of the decoder's language model (JSON)
    tuning: options that were chosen by scoring.tune (JSON)
    decoding_time: figures to write (JSON)
    """
    labels = files.read_sealed(features_index)["labels"]
    model, about = arpa.read(language_model_index)
    decode = decoders.create(tuned.applied(decoder, tuning, about)[0], labels, model)
    every = -(-len(files.read_sealed(posteriors_index)["utterances"]) // MOST)
    found = posteriors_file.read(posteriors, posteriors_index)
    taken = [p for number, (_, p) in enumerate(found) if number % every == 0]
    load, seconds = machine.OtherLoad(), []
    while len(seconds) <= RUNS or sum(seconds[1:]) < LEAST_SECONDS:
        start = time.perf_counter()
        for one in cli.progress(taken, what="time decoding", unit="utterance"):
            decode(one)
        seconds.append(time.perf_counter() - start)
        if len(seconds) == 1:
            load.start()
    timed = np.array(seconds[1:]) / len(taken)
    files.write_json(
        decoding_time,
        {
            "ms_per_utterance": round(1000 * float(np.median(timed)), 5),
            "spread": round(float(timed.std(ddof=1) / timed.mean()), 4),
            "utterances": len(taken),
            "runs": len(timed),
            "other_load": round(load.share(), 4),
            "cpu": node.cpu_name(),
        },
    )
    log.info("%.3f ms per utterance and core", 1000 * np.median(timed))


if __name__ == "__main__":
    cli.run(main)
