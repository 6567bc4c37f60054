"""Train a DeepSpeech2 network on one or more corpora, and keep what is best on a development set.

Every epoch is saved, so that a run that was stopped at any point goes on from its last epoch when
it is started again, and ends with the same weights. The result is the moving average of the weights
at the epoch with the lowest word error rate on the development set, as safetensors whose metadata
say everything that it was made from.
"""

from __future__ import annotations

import csv
import io
import json
import pickle
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata as packages
from pathlib import Path
from typing import Literal

import torch

from deepspeech2 import cli, files, sources
from deepspeech2.cli import CORES, Cores, Input, Output, UserError, log
from deepspeech2.corpus import audio, manifest
from deepspeech2.corpus import labels as labels_file
from deepspeech2.corpus.text import clean
from deepspeech2.features import measure
from deepspeech2.features.spectrogram import Spectrogram
from deepspeech2.model import network
from deepspeech2.model.checkpoint import to_safetensors
from deepspeech2.model.network import DeepSpeech2
from deepspeech2.training.epochs import Recording
from deepspeech2.training.run import Run, Settings

STATE = "state.pt"
LIBRARIES = ("torch", "numpy", "librosa", "soxr", "scipy", "soundfile")


def _size(found: Sequence[Recording]) -> tuple[int, float, int]:
    minutes = sum(r.samples for r in found) / audio.SAMPLE_RATE / 60
    return len(found), minutes, len({r.voice for r in found})


def read_labels(paths: Sequence[Path]) -> list[str]:
    """The labels of all datasets, which must be the same."""
    found = [labels_file.read(path) for path in paths]
    for path, other in zip(paths, found):
        if other != found[0]:
            raise UserError(f"{path}: other labels than those of {paths[0]}; train on one kind")
    return found[0]


def read_recordings(
    manifests: Mapping[str, Path], alphabet: list[str], drop_unknown: Sequence[str], processes: int
) -> list[Recording]:
    """The utterances of some datasets' manifests, checked like those that features are made of."""
    found = []
    with cli.pool(processes) as pool:
        for name, path in manifests.items():
            settings = measure.Settings(alphabet, Spectrogram(), name in drop_unknown)
            samples = manifest.read(path)
            jobs = ((number, sample, settings) for number, sample in enumerate(samples))
            results = pool.map(_measure, jobs, chunksize=16)
            for m in cli.progress(results, len(samples), f"inspect {name}", "utterance"):
                text = clean("".join(alphabet[target] for target in m.targets))
                count = round(m.seconds * audio.SAMPLE_RATE)
                found.append(Recording(m.utterance._replace(text=text), count, name))
    return found


def _measure(job) -> measure.Measured:
    """Preprocess's first pass, and the check of the sound that it leaves to its second."""
    audio.read(job[1].utterance.audio)
    return measure.measure(job)


def data_sha256(path: Path) -> str:
    """Hash over the utterances of a manifest: ids, speakers, samples and texts, not their place."""
    lines = [
        [
            sample.utterance.id,
            sample.utterance.speaker,
            sample.audio_sha256 or files.sha256(sample.utterance.audio),
            sample.transcript_sha256 or files.sha256(sample.transcript),
        ]
        for sample in manifest.read(path)
    ]
    return files.sha256_bytes(json.dumps(lines).encode())


def read_start(weights: Path, model: Path, alphabet: list[str]) -> tuple[DeepSpeech2, dict]:
    """The network to start from and its description. It must write and hear like the new one."""
    description = files.read_sealed(model)
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


def environment(device: str, threads: int) -> dict:
    """Where and with what an epoch is computed."""
    return {
        "device": device,
        "threads": threads,
        "machine": platform.machine(),
        "versions": {"python": platform.python_version()}
        | {name: packages.version(name) for name in LIBRARIES},
        "code_sha256": sources.digest("deepspeech2.training.learn"),
    }


def main(
    train: dict[str, Input],
    dev: dict[str, Input],
    labels: list[Input],
    drop_unknown: list[str],
    settings: cli.Settings,
    start_weights: Input | None,
    start_model: Input | None,
    start_texts: Input | None,
    weights: Output,
    training: Output,
    curves: Output,
    texts: Output,
    device: Literal["cpu", "cuda"] = "cpu",
    threads: Cores = CORES,
    *,
    state: Path | None = None,
) -> None:
    """Command line.

    train: manifests to learn from, by dataset (JSON)
    dev: manifests to choose the epoch by, by dataset (JSON)
    labels: the datasets' characters, all alike (JSON)
    drop_unknown: datasets whose other characters are removed, not refused
    settings: how to train, as in the configuration (JSON text)
    start_weights: safetensors to start from; their architecture replaces that of the settings
    start_model: their description (JSON)
    start_texts: texts that those were trained on, one a line
    weights: safetensors to write
    training: what they were made from, to write (JSON)
    curves: table to write, a line an epoch (CSV)
    texts: texts that it was trained on, to write
    device: where to train
    threads: threads of the computation; the same number gives the same weights
    state: folder for what a later run goes on from; beside the weights if none is named
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no such device here; use cpu")
    if bool(start_weights) != bool(start_model):
        raise UserError("--start-weights, --start-model: give both or neither")
    torch.set_num_threads(threads)
    how = Settings(**settings)
    alphabet = read_labels(labels)
    learnt, chosen_by = (
        read_recordings(manifests, alphabet, drop_unknown, threads) for manifests in (train, dev)
    )
    start = start_state = None
    if start_weights:
        found, start = read_start(start_weights, start_model, alphabet)
        start_state = found.state_dict()
        of_network = dict(start["architecture"])
        del of_network["bins"], of_network["classes"]
        if of_network["bidirectional"] and not how.architecture.get("bidirectional", True):
            of_network |= {
                key: how.architecture[key] for key in ("bidirectional", "lookahead_context")
            }
        how = how._replace(architecture=of_network)
    run = Run(how, learnt, chosen_by, alphabet, device, start_state)
    log.info(
        "%d utterances (%.1f min) of %d speakers to train on, %d (%.1f min) of %d to choose by",
        *_size(learnt),
        *_size(chosen_by),
    )
    data = [
        {"part": part, "name": name, "sha256": data_sha256(path)}
        for part, manifests in (("train", train), ("dev", dev))
        for name, path in manifests.items()
    ]
    made_with = identity(how, data, alphabet, start)
    kept = (state or weights.parent / "state") / STATE
    resume(run, kept, made_with)
    here = environment(device, threads)
    if not run.finished and here not in run.environments:
        run.environments.append(here)
    if run.history:  # the table may have been lost since
        write_curves(curves, run.history)
    while not run.finished:
        run.epoch()
        row = run.history[-1]
        log.info(
            "epoch %(epoch)d: loss %(train_loss).4f, dev loss %(dev_loss).4f, dev WER %(dev_wer).3f"
            " %%, CER %(dev_cer).3f %%, %(seconds).0f s",
            row,
        )
        state_now = io.BytesIO()  # torch aborts where it cannot write
        torch.save({"made_with": made_with, "run": run.state()}, state_now)
        with files.replacing(kept) as temporary:
            temporary.write_bytes(state_now.getbuffer())
        write_curves(curves, run.history)
    description = {
        "labels": alphabet,
        "spectrogram": run.spectrogram._asdict(),
        "architecture": run.network.architecture._asdict(),
        "training": {
            "settings": how._asdict(),
            "data": data,
            "best_epoch": run.best_epoch,
            "curves": run.history,
            "environments": run.environments,
        },
    }
    if start:
        of_start = {key: start.get(key) for key in ("weights_sha256", "training")}
        description["training"]["start"] = of_start
    with files.replacing(weights) as temporary:
        temporary.write_bytes(to_safetensors(run.best, description))
    with files.replacing(texts) as temporary:
        known = {text for text, epoch in run.texts.items() if epoch <= run.best_epoch}
        if start_texts:
            known |= set(start_texts.read_text(encoding="utf-8").splitlines())
        known |= {recording.text for recording in learnt}
        temporary.write_text("".join(f"{text}\n" for text in sorted(known)), encoding="utf-8")
    files.write_json(training, {**description, "weights_sha256": files.sha256(weights)})


def write_curves(path: Path, history: Sequence[dict]) -> None:
    """The history as a table (CSV), a line an epoch."""
    with files.replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, history[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


if __name__ == "__main__":
    cli.run(main)
