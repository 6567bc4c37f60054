"""Turn posteriors into transcripts: JSON lines with id, duration, reference and hypothesis, and
when each word and character of the hypothesis was said and how sure it is.

`words` and `characters` are lists of text, start (s), end (s) and confidence (scoring/times.py).
Any number of processes writes the same file.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from deepspeech2 import cli
from deepspeech2.cli import Cores, Input, Output, UserError, log
from deepspeech2.files import read_sealed, remedy, replacing, sha256, write_json
from deepspeech2.model import posteriors as posteriors_file
from deepspeech2.scoring import arpa, decoders, times, tuned
from deepspeech2.scoring.arpa import LanguageModel
from deepspeech2.scoring.decoders import Decoded

AT_ONCE = 32  # utterances that a process is handed, so that few are held


class Job(NamedTuple):
    """An utterance to decode, and with what."""

    settings: decoders.Settings
    labels: tuple[str, ...]
    model: LanguageModel | None
    posteriors: np.ndarray


def decode_all(
    settings: decoders.Settings,
    labels: list[str],
    model: LanguageModel | None,
    found: Iterator[tuple[str, np.ndarray]],
    processes: int = 1,
) -> Iterator[tuple[str, Decoded]]:
    """Each utterance of `found`, decoded, in its order."""
    if processes == 1:
        decoder = decoders.create(settings, labels, model)
        yield from ((name, decoder(posteriors)) for name, posteriors in found)
        return
    with cli.pool(processes) as pool:
        while part := list(itertools.islice(found, AT_ONCE * processes)):
            jobs = [Job(settings, tuple(labels), model, posteriors) for _, posteriors in part]
            size = -(-len(jobs) // processes)
            yield from zip((name for name, _ in part), pool.map(_decode, jobs, chunksize=size))


def _decode(job: Job) -> Decoded:
    return _decoder(job.settings.text(), job.labels, job.model)(job.posteriors)


@functools.cache
def _decoder(text: str, labels: tuple[str, ...], model: LanguageModel | None) -> decoders.Decoder:
    return decoders.create(decoders.Settings(**json.loads(text)), labels, model)


def main(
    posteriors: Input,
    posteriors_index: Input,
    features_index: Input,
    transcripts: Output,
    index: Output,
    language_model_index: Input | None = None,
    tuning: Input | None = None,
    decoder: decoders.Settings = decoders.Settings("greedy", {}),  # noqa: B008  never changed
    processes: Cores = 1,
) -> None:
    """Command line.

    posteriors: posteriors of all utterances
    posteriors_index: their index (JSON)
    features_index: index of the features, for references and durations (JSON)
    transcripts: JSON lines to write
    index: their index to write (JSON)
    language_model_index: index of the decoder's language model (JSON)
    tuning: options that were chosen by scoring.tune (JSON); those of the decoder count more
    decoder: how posteriors become text: JSON with kind and options, or greedy
    processes: processes that decode
    """
    features = read_sealed(features_index)
    labels, frame = features["labels"], features["spectrogram"]["window_stride"]
    frame = times.seconds_per_frame(frame)
    utterances: dict[str, dict] = {u["id"]: u for u in features["utterances"]}
    model, about = arpa.read(language_model_index)
    settings, chosen = tuned.applied(decoder, tuning, about)
    read = posteriors_file.read(posteriors, posteriors_index)

    def checked() -> Iterator[tuple[str, np.ndarray]]:
        for name, probabilities in read:
            if name not in utterances or probabilities.shape[1] != len(labels):
                raise UserError(
                    f"{posteriors_index}: utterance {name!r} is not in these features; "
                    f"{remedy(posteriors_index)}"
                )
            yield name, probabilities

    count = 0
    total = len(read_sealed(posteriors_index)["utterances"])
    done = decode_all(settings, labels, model, checked(), processes)
    with replacing(transcripts) as path, open(path, "w", encoding="utf-8") as file:
        for name, decoded in cli.progress(done, total, "decode", "utterance"):
            seconds = utterances[name]["seconds"]
            line = {
                "id": name,
                "duration": seconds,
                "reference": utterances[name]["reference"],
                "hypothesis": decoded.text,
                "words": times.words(decoded, frame, seconds),
                "characters": times.characters(decoded, frame, seconds),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    write_json(
        index,
        {
            "sha256": sha256(transcripts),
            "utterances": count,
            "decoder": settings._asdict(),
            "language_model": about,
            "tuning": chosen,
        },
    )
    log.info("%d utterances decoded", count)


if __name__ == "__main__":
    cli.run(main)
