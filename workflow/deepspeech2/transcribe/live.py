"""Shows what a stream's network hears, as it hears it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from deepspeech2.cli import UserError
from deepspeech2.corpus import audio
from deepspeech2.features.spectrogram import Spectrogram
from deepspeech2.files import read_sealed
from deepspeech2.model import network
from deepspeech2.transcribe.engine import MODEL, WEIGHTS
from deepspeech2.transcribe.formats import Ctm
from deepspeech2.transcribe.inputs import STANDARD, Recording, require_piped
from deepspeech2.transcribe.recognise import Segment
from deepspeech2.transcribe.stream import Heard, Stream, transcribe

PORTION = 1600  # samples of a file at a time
FILES = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"FORM", b"NIST")  # how files with a header begin
REWRITE = "\r\x1b[K"  # back to the line's begin, and clear it


def run(recording: Recording, folder: Path, format: str) -> None:
    """Transcribe a recording as a stream to standard output, by the model in `folder`."""
    about = read_sealed(folder / MODEL)
    net = network.load_alone(folder / WEIGHTS, "static")
    if net.architecture.bidirectional:
        raise UserError(
            "--stream: the layers of this model hear a recording from both ends; name a --model "
            "of one direction, or leave out --stream"
        )
    torch.set_num_threads(1)  # the steps are small
    stream = Stream(net, Spectrogram(**about["spectrogram"]))
    source = _standard() if recording.path == STANDARD else _file(recording.path)
    heard = transcribe(source, stream, about["labels"])
    if format == "ctm":
        writer = Ctm(_write, recording.name, False)
        for words, _, _ in heard:
            for word in words:
                writer.segment(Segment(word.start, word.end, word.text, [word]))
    elif sys.stdout.isatty():
        _rewrite(heard)
    else:
        for words, _, latency in heard:
            for word in words:
                late = latency + words[-1].end - word.end
                _write(f"{word.start:.2f}\t{word.end:.2f}\t{late:.2f}\t{word.text}\n")


def _write(text: str) -> None:
    print(text, end="", flush=True)


def _rewrite(heard: Iterator[Heard]) -> None:
    """A line that grows and changes, until it is full or nothing is said."""
    line, late = "", 0.0
    for words, partial, latency in heard:
        width = shutil.get_terminal_size().columns - 10
        late = latency if words else late
        for word in words:
            if line and len(line) + len(word.text) >= width:
                _write(f"{REWRITE}{late:5.2f} s {line}\n")
                line = ""
            line = f"{line} {word.text}".strip()
        shown = f"{line} {partial}".strip()
        _write(f"{REWRITE}{late:5.2f} s {shown[-width:]}" if shown else "")
    _write("\n" if line else "")


def _file(path: str) -> Iterator[np.ndarray]:
    for block in audio.blocks(path):
        for first in range(0, len(block), PORTION):
            yield block[first : first + PORTION]


def _standard() -> Iterator[np.ndarray]:
    """The samples on standard input, as they come. Ctrl-C ends them, as a closed pipe does."""
    require_piped()
    rest, begun = b"", False
    try:
        while data := sys.stdin.buffer.read1(2 * PORTION):
            data = rest + data
            if not begun and data.startswith(FILES):
                raise UserError(
                    "standard input: a file with a header, and --stream takes raw PCM (16 bits, 16 "
                    "kHz, one channel); convert it, or leave out --stream"
                )
            begun = begun or len(data) >= 4
            whole = len(data) // 2 * 2
            rest = data[whole:]
            yield audio.to_float(np.frombuffer(data[:whole], "<i2"))
    except KeyboardInterrupt:
        return
