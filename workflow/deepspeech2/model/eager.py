"""Posteriors of the eager reference: the packed network in float32, one utterance at a time.

Nothing is exported, compiled, batched or padded here. Every engine's transcripts are compared with
those of this run.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from deepspeech2 import cli, sources
from deepspeech2.cli import Input, Output, log
from deepspeech2.features.batches import FeatureSet
from deepspeech2.model import network
from deepspeech2.model import posteriors as posteriors_file
from deepspeech2.node import place


def infer(net: network.DeepSpeech2, features: FeatureSet) -> Iterator[tuple[str, np.ndarray]]:
    """Utterance id and posteriors (T', classes) of each utterance, in the features' order."""
    positions = range(len(features))
    for position in cli.progress(positions, len(features), "eager", "utterance"):
        utterance = features.utterances[position]
        frames = utterance["frames"]
        spectrogram = np.ascontiguousarray(features.load(position)[None, None, :, :frames])
        with torch.inference_mode():
            lengths = torch.tensor([frames], dtype=torch.int32)
            probabilities, lengths = net(torch.from_numpy(spectrogram), lengths)
        yield utterance["id"], probabilities[0, : lengths[0]].numpy()


def main(
    features: Input,
    features_index: Input,
    weights: Input,
    model: Input,
    posteriors: Output,
    index: Output,
    threads: int = 1,
) -> None:
    """Command line.

    features: folder of features
    features_index: their index (JSON)
    weights: the model's safetensors
    model: the model's description (JSON)
    posteriors: file to write
    index: index to write (JSON)
    threads: threads of the computation; the same number gives the same bytes
    """
    torch.set_num_threads(threads)
    feature_set = FeatureSet(features, features_index)
    run = {
        "engine": "eager float32",
        "batch_size": 1,
        "threads": threads,
        **place("cpu"),
        "versions": {"torch": torch.__version__},
        "features_sha256": feature_set.index_sha256,
        "code_sha256": sources.digest("deepspeech2.model.eager"),
    }
    net = network.load(weights, model, "packed")
    count = posteriors_file.write(posteriors, index, infer(net, feature_set), run)
    log.info("%d utterances", count)


if __name__ == "__main__":
    cli.run(main)
