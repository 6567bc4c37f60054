"""Posteriors of the eager reference: the packed network in float32, one utterance at a time.

Nothing is exported, compiled, batched or padded here. Every engine's transcripts are compared with
those of this run.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from deepspeech2 import network, posteriors_file, sources, stage
from deepspeech2.features import FeatureSet
from deepspeech2.stage import log


def infer(net: network.DeepSpeech2, features: FeatureSet) -> Iterator[tuple[str, np.ndarray]]:
    """Utterance id and posteriors (T', classes) of each utterance, in the features' order."""
    positions = range(len(features))
    for position in stage.progress(positions, len(features), "eager", "utterance"):
        utterance = features.utterances[position]
        frames = utterance["frames"]
        spectrogram = np.ascontiguousarray(features.load(position)[None, None, :, :frames])
        with torch.inference_mode():
            lengths = torch.tensor([frames], dtype=torch.int32)
            probabilities, lengths = net(torch.from_numpy(spectrogram), lengths)
        yield utterance["id"], probabilities[0, : lengths[0]].numpy()


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--features", required=True, help="folder of features")
    parser.add_argument("--features-index", required=True, help="their index (JSON)")
    parser.add_argument("--weights", required=True, help="the model's safetensors")
    parser.add_argument("--model", required=True, help="the model's description (JSON)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--posteriors", required=True, help="file to write")
    parser.add_argument("--index", required=True, help="index to write (JSON)")
    args = stage.parse(parser, argv)

    torch.set_num_threads(args.threads)
    features = FeatureSet(args.features, args.features_index)
    run = {
        "engine": "eager float32",
        "batch_size": 1,
        "threads": args.threads,
        "versions": {"torch": torch.__version__},
        "features_sha256": features.index_sha256,
        "code_sha256": sources.digest(__spec__.name),
    }
    net = network.load(args.weights, args.model, "packed")
    count = posteriors_file.write(args.posteriors, args.index, infer(net, features), run)
    log.info("%d utterances", count)


if __name__ == "__main__":
    stage.run(main)
