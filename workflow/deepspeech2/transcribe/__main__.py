"""Transcribe recordings of any length: text, JSON, subtitles (SRT, VTT) or CTM.

A recording is any file that corpora may have (WAV, FLAC, Ogg, MP3 ...), at any rate; a folder
stands for all of them in it, and - for one on standard input. Each is written as soon as it is
done, text and CTM as soon as a piece of it is. A recording that cannot be read is named, the others
are transcribed, and the exit status is 1.

With --stream, sound is transcribed as it comes: from standard input, which is raw PCM (16 bits,
little endian, 16 kHz, one channel), as a microphone's program writes it, or from a file. This needs
a model whose recurrent layers have one direction. Its spectrogram is normalised by the mean and
deviation of what was heard so far, not of the whole utterance as in the workflow's tables, so
figures differ from theirs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from deepspeech2 import cli
from deepspeech2.cli import Arguments, UserError, log, printable
from deepspeech2.corpus import audio
from deepspeech2.files import replacing
from deepspeech2.scoring import decoders
from deepspeech2.transcribe import engine as engines
from deepspeech2.transcribe.formats import FORMATS, Text
from deepspeech2.transcribe.inputs import (
    STANDARD,
    Recording,
    blocks,
    hinted_seconds,
    recordings,
)
from deepspeech2.transcribe.recognise import segments


def outputs(found: list[Recording], output: Path | None, kind: type[Text]) -> list[Path | None]:
    """The file for each recording's transcript, None for standard output."""
    if output is None:
        if kind.single and len(found) > 1:
            raise UserError("subtitles of several recordings need --output with a folder for them")
        return [None] * len(found)
    if not (len(found) > 1 or found[0].in_folder or output.is_dir()):
        places = [output]
    else:
        places = [output / recording.place.with_suffix(kind.suffix) for recording in found]
    taken: dict[Path, str] = {}
    for recording, place in zip(found, places):
        other = taken.setdefault(place, recording.name)
        if other != recording.name:
            raise UserError(f"{other} and {recording.name} would both be written to {place}")
        if any(r.path != STANDARD and _is_same(place, r.path) for r in found):
            raise UserError(f"--output {place}: is one of the recordings; name another")
        if place.exists() and not place.is_file():
            raise UserError(f"--output {place}: not a file; name another")
    return list(places)


def _is_same(one: Path, other: str) -> bool:
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


@contextlib.contextmanager
def writing(place: Path | None) -> Iterator:
    """What writes to a file, which is whole or not there, or to standard output at once."""
    if place is None:
        yield lambda text: print(text, end="", flush=True)
        return
    with replacing(place) as temporary, open(temporary, "w", encoding="utf-8") as file:
        yield file.write


@contextlib.contextmanager
def until_nobody_reads() -> Iterator[None]:
    """End without a word where standard output's reader does, as head."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes there
        sys.exit(1)


def transcribe(recording: Recording, place: Path | None, several: bool, kind, network, decoder):
    """Write one recording's transcript."""
    done = 0

    def counted(source: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        nonlocal done
        for block in source:
            done += len(block)
            yield block

    shown = place is not None or not sys.stdout.isatty()
    title = printable(os.path.basename(recording.name))
    bar = cli.progress(None, hinted_seconds(recording.path), title, "s")
    bar.disable = bar.disable or not shown
    with blocks(recording) as source, writing(place) as write, bar:
        writer = kind(write, recording.name, several)
        silent = True
        for seconds, segment in segments(counted(source), network, decoder):
            if segment:
                silent = False
                writer.segment(segment)
            bar.update(round(seconds) - bar.n)
        writer.close(done / audio.SAMPLE_RATE)
    if silent:
        log.warning("%s: no speech was found", recording.name)


def main(
    *,
    files: Arguments,
    model: str = "",
    engine: str = "native-int8",
    decoder: str = "greedy",
    format: Literal[tuple(FORMATS)] = "text",
    output: Path | None = None,
    stream: bool = False,
) -> None:
    """Command line.

    files: recordings, folders of them, or - for standard input
    model: a model of config.yaml, or the path of a checkpoint (default: embedded; with --stream,
        streaming)
    engine: an engine of config.yaml, a backend's name, or JSON like an engine's entry
    decoder: how posteriors become text: a decoder of config.yaml, or JSON like an entry of its
        decoders with kind and options
    format: what to write
    output: file to write, or folder for the transcripts of several; else standard output
    stream: transcribe sound as it comes
    """
    if not any(isinstance(handler, logging.FileHandler) for handler in log.handlers):
        log.setLevel(logging.WARNING)
    for file in (sys.stdout, sys.stderr):
        file.reconfigure(encoding="utf-8", errors="backslashreplace")
    found = recordings(files)
    places = outputs(found, output, FORMATS[format])
    entry = engines.checkpoint_of(model or ("streaming" if stream else "embedded"))
    if stream:
        if len(found) > 1 or format not in ("text", "ctm") or output:
            raise UserError("--stream: takes one recording, and writes text or ctm as it comes")
        if decoder != "greedy":
            raise UserError("--stream: decodes greedily, without a language model")
        from deepspeech2.transcribe import live  # imports torch, which takes a second

        with engines.ready(entry, None) as folder, until_nobody_reads():
            live.run(found[0], folder, format)
        return
    option = f"--engine {engine}"
    try:
        chosen = engines.engine_of(engine)
        option = f"--decoder {decoder}"
        settings, lm = engines.decoder_of(decoder)
    except ArgumentTypeError as error:
        raise UserError(f"{option}: {error}") from None
    failed = 0
    with engines.ready(entry, chosen) as folder, until_nobody_reads():
        network = engines.Network(chosen, folder)
        decoding = decoders.create(settings, network.labels, lm)
        cli.used.clear()  # what goes wrong from here on is no sealed file's fault
        for recording, place in zip(found, places):
            try:
                kind = FORMATS[format]
                transcribe(recording, place, len(found) > 1, kind, network, decoding)
            except (UserError, OSError) as error:
                if len(found) == 1 or isinstance(error, BrokenPipeError):
                    raise
                failed += 1
                where = f"{recording.name}: " if isinstance(error, OSError) else ""
                print(printable(f"error: {where}{error}"), file=sys.stderr)
        network.close()
    if failed:
        raise UserError(f"{failed} of {len(found)} recordings could not be transcribed; see above")


if __name__ == "__main__":
    cli.run(main)
