"""The layout `espeak`: a table of texts that espeak-ng speaks, a corpus without recordings.

The table (TSV) has the columns `id`, `transcript`, `voice` (of espeak-ng, with a variant after a
plus), `pitch` (0 to 99) and `words_per_minute`. A word of one letter is spoken as the letter's
name. Every utterance gets a level, a noise floor and edges of silence of its own, drawn from its
id, so that a table gives the same samples wherever the same version of espeak-ng speaks.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deepspeech2 import cli
from deepspeech2.cli import UserError, log
from deepspeech2.corpus import layouts, tables
from deepspeech2.corpus.audio import SAMPLE_RATE, Audio
from deepspeech2.corpus.utterance import Utterance

PROGRAM = "espeak-ng"
VOICE = re.compile(r"[a-z0-9-]+(\+[A-Za-z0-9_-]+)?")
BOUNDS = {"pitch": (0, 99), "words_per_minute": (80, 450)}
TRIM = 50  # dB below the loudest, which is silence
EDGES = (0.05, 0.4)  # seconds of it before and after the speech
PEAK = (0.1, 0.7)
NOISE = (-70, -45)  # dB of full scale


class Layout(layouts.Layout):
    """See the module. The speaker of an utterance is its voice."""

    @classmethod
    def claims(cls, source: Path) -> str | None:
        return "the columns of voices" if tables.has_headings(source, *Line._fields) else None

    def read(self, keep: layouts.Keep) -> list[Utterance]:
        log.info("spoken by %s %s", PROGRAM, version())
        lines = read(self.source)
        check_variants(lines)
        with cli.pool() as pool:
            for line, samples in zip(lines, pool.map(speak, lines)):
                keep(line.id, Audio(samples, []))
        return [Utterance(x.id, x.voice, x.transcript, x.voice) for x in lines]


class Line(NamedTuple):
    """A line of the table: an utterance to be spoken."""

    id: str
    transcript: str
    voice: str
    pitch: int
    words_per_minute: int


def read(table: str | Path) -> list[Line]:
    """The lines of a table, sorted by id. Raises `UserError` for what cannot be spoken."""
    lines: dict[str, Line] = {}
    for number, row in tables.rows(Path(table), Line._fields, "\t", quoted=False):
        line = _line(row, f"{table}: line {number}")
        if line.id in lines:
            raise UserError(f"{table}: the id {line.id!r} appears twice; rename one")
        lines[line.id] = line
    if not lines:
        raise UserError(f"{table}: no lines in it")
    return [lines[key] for key in sorted(lines)]


def _line(row: dict, where: str) -> Line:
    values = {key: row[key].strip() for key in Line._fields}
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", values["id"]):
        raise UserError(f"{where}: {values['id']!r:.100} is not a valid id; rename it")
    text = " ".join(values["transcript"].split())
    if not re.fullmatch(r"[A-Za-z' ]+", text):
        raise UserError(f"{where}: {text!r:.100} is not a text of letters, spaces and apostrophes")
    if not VOICE.fullmatch(values["voice"]):
        raise UserError(f"{where}: {values['voice']!r:.100} is not a voice of espeak-ng")
    numbers = []
    for key, (low, high) in BOUNDS.items():
        if not re.fullmatch("[0-9]{1,3}", values[key]) or not low <= int(values[key]) <= high:
            raise UserError(f"{where}: {key} must be a whole number from {low} to {high}")
        numbers.append(int(values[key]))
    return Line(values["id"], text, values["voice"], *numbers)


def version() -> str:
    """The version of espeak-ng. Raises `UserError` where there is none."""
    if shutil.which(PROGRAM) is None:
        raise UserError(
            f"{PROGRAM}: no such program, and this corpus is spoken by it; install the package "
            f"{PROGRAM}"
        )
    done = subprocess.run([PROGRAM, "--version"], check=True, capture_output=True, text=True)
    found = re.search(r"\d+(\.\d+)+", done.stdout)
    return found.group() if found else "unknown"


def check_variants(lines: Iterable[Line]) -> None:
    """Refuse variants that espeak-ng does not know: it would speak without them, and not say so."""
    command = [PROGRAM, "--voices=variant"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    known = set(re.findall(r"!v/(\S+)", listed))
    for line in lines:
        variant = line.voice.partition("+")[2]
        if variant and variant not in known:
            raise UserError(f"{line.id}: {PROGRAM} has no variant {variant!r}; choose another")


def ssml(transcript: str) -> str:
    """What espeak-ng is given to say: the transcript, its letters marked as letters."""
    words = transcript.lower()  # in capitals, a word might be taken for an acronym
    words = words.replace("rubout", "rub-out")  # without the hyphen it says "roo-bout"
    # Without the mark, "a" would be the article, and letters run together.
    letters = r"(?<!\S)[a-z](?: [a-z])*(?!\S)"
    return re.sub(letters, r'<say-as interpret-as="characters">\g<0></say-as>', words)


def say(line: Line) -> np.ndarray:
    """What espeak-ng says, (n,) float32 at SAMPLE_RATE, without the silence around it."""
    import librosa  # takes two seconds to import

    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        options = ["-v", line.voice, "-p", str(line.pitch), "-s", str(line.words_per_minute)]
        done = subprocess.run(
            [PROGRAM, "-m", "-z", *options, "-w", str(wav), ssml(line.transcript)],
            capture_output=True,
            text=True,
        )
        if done.returncode or not wav.exists():
            reason = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
            raise UserError(f"{line.id}: {PROGRAM} does not speak it ({reason:.200})")
        speech, _ = librosa.load(wav, sr=SAMPLE_RATE, res_type="soxr_hq")
    if not speech.any():
        raise UserError(f"{line.id}: {PROGRAM} says nothing for {line.transcript!r:.100}")
    return librosa.effects.trim(speech, top_db=TRIM)[0]


def speak(line: Line) -> np.ndarray:
    """Samples (n,) int16 of an utterance."""
    speech = say(line)
    rng = np.random.default_rng(zlib.crc32(line.id.encode()))
    edges = [round(rng.uniform(*EDGES) * SAMPLE_RATE) for _ in range(2)]
    speech = np.pad(speech * (rng.uniform(*PEAK) / np.abs(speech).max()), edges)
    speech = speech + rng.normal(scale=10 ** (rng.uniform(*NOISE) / 20), size=len(speech))
    return np.round(speech * 32767).clip(-32768, 32767).astype(np.int16)
