"""Train a DeepSpeech2 network on one or more corpora, and keep what is best on a development set.

Every epoch is saved, so that a run that was stopped at any point goes on from its last epoch when
it is started again, and ends with the same weights. The result is the moving average of the weights
at the epoch with the lowest word error rate on the development set, as safetensors whose metadata
say everything that it was made from.
"""

from __future__ import annotations

import csv
import json
import os
import pickle
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata as packages
from pathlib import Path

import safetensors.torch
import torch

from deepspeech2 import audio, files, labels, network, preprocess, recordings, sources, stage
from deepspeech2.architecture import Spectrogram
from deepspeech2.checkpoint import COUNTER, METADATA_KEY
from deepspeech2.epochs import Recording
from deepspeech2.learner import Run, Settings
from deepspeech2.network import DeepSpeech2
from deepspeech2.stage import UserError, log

STATE = "state.pt"
LIBRARIES = ("torch", "numpy", "librosa", "soxr", "scipy", "soundfile")


def _size(found: Sequence[Recording]) -> tuple[int, float, int]:
    minutes = sum(r.samples for r in found) / audio.SAMPLE_RATE / 60
    return len(found), minutes, len({(r.dataset, r.speaker) for r in found})


def read_labels(paths: Sequence[str]) -> list[str]:
    """The labels of all datasets, which must be the same."""
    found = [labels.read(path) for path in paths]
    for path, other in zip(paths, found):
        if other != found[0]:
            raise UserError(f"{path}: other labels than those of {paths[0]}; train on one kind")
    return found[0]


def read_recordings(
    manifests: Mapping[str, str], alphabet: list[str], drop_unknown: Sequence[str], processes: int
) -> list[Recording]:
    """The utterances of some datasets' manifests, checked like those that features are made of."""
    found = []
    with ProcessPoolExecutor(processes) as pool:
        for name, manifest in manifests.items():
            settings = preprocess.Settings(manifest, alphabet, Spectrogram(), name in drop_unknown)
            samples = recordings.read_manifest(manifest)
            jobs = ((number, sample, settings) for number, sample in enumerate(samples))
            results = pool.map(_inspect, jobs, chunksize=16)
            for p in stage.progress(results, len(samples), f"inspect {name}", "utterance"):
                count = round(p.seconds * audio.SAMPLE_RATE)
                text = recordings.clean("".join(alphabet[target] for target in p.targets))
                sample = samples[p.given]
                found.append(Recording(str(sample.wav), count, name, sample.speaker, text))
    return found


def _inspect(job) -> preprocess.Prepared:
    """Preprocess's first pass, and the check of the sound that it leaves to its second."""
    audio.read(job[1].wav)
    return preprocess.inspect(job)


def data_sha256(manifest: str) -> str:
    """Hash over the utterances of a manifest: ids, speakers, samples and texts, not their place."""
    lines = [
        [s.id, s.speaker, s.wav_sha256 or files.sha256(s.wav), s.txt_sha256 or files.sha256(s.txt)]
        for s in recordings.read_manifest(manifest)
    ]
    return files.sha256_bytes(json.dumps(lines).encode())


def read_start(weights: str, model: str, alphabet: list[str]) -> tuple[DeepSpeech2, dict]:
    """The network to start from and its description. It must write and hear like the new one."""
    description = files.read_json(model)
    if description["labels"] != alphabet:
        raise UserError(f"{model}: other labels than the datasets'; start from another model")
    if Spectrogram(**description["spectrogram"]) != Spectrogram():
        raise UserError(f"{model}: made for another spectrogram; start from another model")
    return network.load(weights, model, "static"), description


def identity(
    settings: Settings, data: Sequence[dict], alphabet: Sequence[str], start: dict | None
) -> str:
    """What a state must have been made with to be gone on from: all that the result depends on."""
    content = [settings._asdict(), data, list(alphabet)]
    content += [start["weights_sha256"]] if start else []
    return files.sha256_bytes(json.dumps(content, sort_keys=True).encode())


def resume(run: Run, path: Path, made_with: str) -> None:
    """Take up the state in `path`, if there is one.

    Other code goes on with it, too: an edit of a comment must not cost hours.
    """
    if not path.exists():
        return
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        fits = state["made_with"] == made_with
        if fits:
            run.restore(state["run"])
    except (RuntimeError, LookupError, TypeError, ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: not a training state ({error!r:.100}); remove it") from None
    except pickle.UnpicklingError:
        raise UserError(f"{path}: not a training state; remove it") from None
    if not fits:
        raise UserError(
            f"{path}: of a run with other settings or data, and holds its result; go back to them, "
            "choose another name, or remove it to start anew"
        )
    log.info("going on after epoch %d", len(run.history))


def environment(args) -> dict:
    """Where and with what an epoch is computed."""
    return {
        "device": args.device,
        "threads": args.threads,
        "machine": platform.machine(),
        "versions": {"python": platform.python_version()}
        | {name: packages.version(name) for name in LIBRARIES},
        "code_sha256": sources.digest(__spec__.name),
    }


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--train", nargs="+", required=True, metavar="NAME=MANIFEST")
    parser.add_argument("--dev", nargs="+", required=True, metavar="NAME=MANIFEST")
    parser.add_argument(
        "--labels", nargs="+", required=True, help="the datasets' characters, all alike (JSON)"
    )
    parser.add_argument(
        "--drop-unknown", action="append", default=[], metavar="NAME",
        help="a dataset whose other characters are left out, not refused",
    )  # fmt: skip
    parser.add_argument("--settings", required=True, help="how to train (JSON text)")
    parser.add_argument(
        "--start", nargs=2, metavar=("SAFETENSORS", "MODEL_JSON"),
        help="weights to start from; their architecture replaces that of the settings",
    )  # fmt: skip
    parser.add_argument("--start-texts", help="texts that those were trained on, one a line")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--state", required=True, help="folder for what a later run goes on from")
    parser.add_argument("--curves", required=True, help="table to write, a line an epoch (CSV)")
    parser.add_argument("--weights", required=True, help="safetensors to write")
    parser.add_argument("--training", required=True, help="what it was made from, to write (JSON)")
    parser.add_argument("--texts", required=True, help="texts that it was trained on, to write")
    args = stage.parse(parser, argv)

    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no such device here; use cpu")
    torch.set_num_threads(args.threads)
    settings = Settings(**json.loads(args.settings))
    alphabet = read_labels(args.labels)
    sets = [dict(pair.split("=", 1) for pair in pairs) for pairs in (args.train, args.dev)]
    train, dev = (
        read_recordings(manifests, alphabet, args.drop_unknown, args.threads) for manifests in sets
    )
    start = weights = None
    if args.start:
        found, start = read_start(*args.start, alphabet)
        weights = found.state_dict()
        of_network = dict(start["architecture"])
        del of_network["bins"], of_network["classes"]
        settings = settings._replace(architecture=of_network)
    run = Run(settings, train, dev, alphabet, args.device, weights)
    log.info(
        "%d utterances (%.1f min) of %d speakers to train on, %d (%.1f min) of %d to choose by",
        *_size(train),
        *_size(dev),
    )
    state = Path(args.state) / STATE
    data = [
        {"part": part, "name": name, "sha256": data_sha256(manifest)}
        for part, manifests in zip(("train", "dev"), sets)
        for name, manifest in manifests.items()
    ]
    made_with = identity(settings, data, alphabet, start)
    resume(run, state, made_with)
    if not run.finished and environment(args) not in run.environments:
        run.environments.append(environment(args))
    if run.history:  # the table may have been lost since
        write_curves(args.curves, run.history)
    while not run.finished:
        run.epoch()
        row = run.history[-1]
        log.info(
            "epoch %(epoch)d: loss %(train_loss).4f, dev loss %(dev_loss).4f, dev WER %(dev_wer).3f"
            " %%, CER %(dev_cer).3f %%, %(seconds).0f s",
            row,
        )
        with files.replacing(state) as temporary, open(temporary, "wb") as file:
            torch.save({"made_with": made_with, "run": run.state()}, file)
            file.flush()
            os.fsync(file.fileno())  # a power cut shall leave this state or the one before
        write_curves(args.curves, run.history)
    description = {
        "labels": alphabet,
        "spectrogram": run.spectrogram._asdict(),
        "architecture": run.network.architecture._asdict(),
        "training": {
            "settings": settings._asdict(),
            "data": data,
            "best_epoch": run.best_epoch,
            "curves": run.history,
            "environments": run.environments,
        },
    }
    if start:
        kept = {key: start.get(key) for key in ("weights_sha256", "training")}
        description["training"]["start"] = kept
    weights = {k: v for k, v in run.best.items() if not k.endswith(COUNTER)}
    with files.replacing(args.weights) as temporary:
        content = json.dumps(description, ensure_ascii=False)
        temporary.write_bytes(safetensors.torch.save(weights, {METADATA_KEY: content}))
    with files.replacing(args.texts) as temporary:
        spliced = {text for text, epoch in run.texts.items() if epoch <= run.best_epoch}
        if args.start_texts:
            spliced |= set(Path(args.start_texts).read_text(encoding="utf-8").splitlines())
        texts = sorted(spliced | {recording.text for recording in train})
        temporary.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    files.write_json(args.training, {**description, "weights_sha256": files.sha256(args.weights)})


def write_curves(path: str | Path, history: Sequence[dict]) -> None:
    """The history as a table (CSV), a line an epoch."""
    with files.replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, history[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


if __name__ == "__main__":
    stage.run(main)
