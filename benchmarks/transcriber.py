"""How right, fast and small the transcriber is, on the utterances of a manifest.

    python benchmarks/transcriber.py --manifest results/datasets/an4/an4_test_manifest.json

What the workflow made of AN4 (snakemake --configfile config/an4.yaml) has that manifest. Words that
are wrong are counted in the utterances by themselves and in one recording of all of them; time and
the most memory are those of 10 minutes and of so many --hours. Start-up is from the start of the
program to the first text of a recording of 2 seconds, the median of 5.

--streaming-model NAME counts the words that are wrong in a stream of each utterance, and where the
same network hears utterances that are normalised as in the workflow; the latency is that of words
before the last, at the speed at which they are said, on one core.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow"))

import numpy as np
import soundfile
from deepspeech2 import cli
from deepspeech2.corpus import audio
from deepspeech2.corpus import manifest as manifests
from deepspeech2.scoring.alignment import count_errors, words
from deepspeech2.transcribe import engine as engines

PORTION = 1600  # samples


def run(*arguments: object) -> tuple[str, float, float, float]:
    """What the transcriber writes, its seconds, those of the CPU, and its most memory (MiB)."""
    command = [sys.executable, "-m", "deepspeech2.transcribe", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    with tempfile.TemporaryFile("w+") as file:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=file, env=environment)
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            raise SystemExit("the transcriber failed")
        file.seek(0)
        return file.read(), seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def fill(path: Path, recordings: list[np.ndarray], seconds: float) -> None:
    """Write so many seconds of recordings (n,) int16, over and over."""
    left, number = round(seconds * audio.SAMPLE_RATE), 0
    with soundfile.SoundFile(path, "w", audio.SAMPLE_RATE, 1, "PCM_16") as file:
        while left > 0:
            part = recordings[number % len(recordings)][:left]
            file.write(part)
            left, number = left - len(part), number + 1


def errors(references: list[str], hypotheses: list[str]) -> str:
    """Words that are wrong, of how many, in percent."""
    pairs = [(words(r), words(h)) for r, h in zip(references, hypotheses)]
    found = count_errors(pairs)
    return f"{found.count} of {found.length} words wrong ({found.rate:.2f} %)"


def stream(model: str, recordings: list[np.ndarray], references: list[str]) -> None:
    """Print what a network makes of streams, and of utterances as the workflow normalises them."""
    import torch
    from deepspeech2.features import spectrogram
    from deepspeech2.files import read_sealed
    from deepspeech2.model import network
    from deepspeech2.scoring import decoders
    from deepspeech2.transcribe.stream import Stream, transcribe

    torch.set_num_threads(1)
    with engines.ready(engines.checkpoint_of(model), None) as folder:
        net = network.load_alone(folder / engines.WEIGHTS, "static")
        about = read_sealed(folder / engines.MODEL)
    settings = spectrogram.Spectrogram(**about["spectrogram"])
    decoder = decoders.create(decoders.Settings("greedy", {}), about["labels"])
    whole, streamed, late, spent = [], [], [], 0.0
    for samples in map(audio.to_float, recordings):
        features = torch.from_numpy(np.ascontiguousarray(spectrogram.compute(samples, settings)))
        lengths = torch.tensor([features.size(1)], dtype=torch.int32)
        with torch.inference_mode():
            posteriors, _ = net(features[None, None], lengths)
        whole.append(decoder(posteriors[0].numpy()).text)
        portions = (samples[n : n + PORTION] for n in range(0, len(samples), PORTION))
        start = time.process_time()
        heard = list(transcribe(portions, Stream(net, settings), about["labels"]))
        spent += time.process_time() - start
        streamed.append(" ".join(word.text for some in heard for word in some.words))
        late += [some.latency for some in heard[:-1] if some.words]
    seconds = sum(map(len, recordings)) / audio.SAMPLE_RATE
    print(f"utterances as the workflow normalises them: {errors(references, whole)}")
    print(f"streams: {errors(references, streamed)}")
    print(f"a stream takes {spent / seconds:.4f} of its time; {len(late)} words came "
          f"{statistics.median(late or [0]):.2f} s after their ends (median)")  # fmt: skip


def main(
    *,
    manifest: Path,
    model: str = "embedded",
    engine: str = "native-int8",
    hours: float = 5.0,
    streaming_model: str = "",
) -> None:
    """Command line.

    manifest: manifest of the utterances (JSON)
    model: a model of config.yaml, or the path of a checkpoint
    engine: an engine of config.yaml, or JSON
    hours: length of the longest recording
    streaming_model: a model of one direction, and nothing else is measured
    """
    utterances = [sample.read() for sample in manifests.read(manifest)]
    recordings = [soundfile.read(u.audio, dtype="int16")[0] for u in utterances]
    references = [u.text for u in utterances]
    if streaming_model:
        stream(streaming_model, recordings, references)
        return
    options = ("--model", model, "--engine", engine)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{number:05}.wav") for number in range(len(recordings))]
        for file, recording in zip(files, recordings):
            soundfile.write(file, recording, audio.SAMPLE_RATE)
        run(files[0], *options)  # prepares the model
        alone = {file.name: "" for file in files}
        for line in run(*files, *options)[0].splitlines():
            path, _, text = line.partition(": ")
            alone[Path(path).name] += f" {text}"
        print(f"utterances by themselves: {errors(references, list(alone.values()))}")
        long = Path(folder, "long.wav")
        fill(long, recordings, sum(map(len, recordings)) / audio.SAMPLE_RATE)
        print(f"one recording: {errors([' '.join(references)], [run(long, *options)[0]])}")
        fill(long, recordings, 2)
        starts = sorted(run(long, *options)[1:3] for _ in range(5))
        print(f"start-up: {starts[2][0]:.2f} s, {starts[2][1]:.2f} s of the CPU")
        for seconds in (600, 3600 * hours):
            fill(long, recordings, seconds)
            _, took, _, memory = run(long, *options)
            print(f"{seconds:.0f} s of sound: {took:.1f} s, {memory:.0f} MiB at most")


if __name__ == "__main__":
    cli.run(main)
