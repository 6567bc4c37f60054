"""Make the sample corpus: 64 short English utterances spoken by espeak-ng.

Writes audio/sample-NNN.flac (16 kHz, mono, 16 bit) and transcripts.tsv to an output folder.
Nothing is left to chance: with the versions named in README.md, every run gives the same bytes.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "workflow"))

from deepspeech2.cli import UserError
from deepspeech2.corpus.audio import SAMPLE_RATE
from deepspeech2.corpus.layouts import espeak

ESPEAK_VERSION = "1.51"
EDGE_SECONDS = 0.1  # silence kept before and after the speech
PEAK = 0.5  # -6 dBFS
NOISE_RMS = 10 ** (-55 / 20)  # so that no stretch is digital silence
SEED = 4

FIELDS = ("path", "transcript", "speaker", "style", "accent", "pitch", "words_per_minute")

# Eight accents, each with a female and a male variant.
VOICES = (
    *("en-us+f2", "en-gb+m3", "en-029+f4", "en-gb-scotland+m7"),
    *("en-us-nyc+f3", "en-gb-x-rp+m1", "en-gb-x-gbclan+f1", "en-gb-x-gbcwmd+m2"),
    *("en-us+m3", "en-gb+f2", "en-029+m1", "en-gb-scotland+f3"),
    *("en-us-nyc+m7", "en-gb-x-rp+f4", "en-gb-x-gbclan+m2", "en-gb-x-gbcwmd+f1"),
)

# The styles alternate, so that the first few utterances already hold all of them. A word of one
# letter is always a spelled letter: "A" is never the article, "I" never the pronoun.
TEXTS = (
    ("spelling", "S M Y T H"),
    ("number", "FOUR TWO SEVEN EIGHT OH THREE"),
    ("date", "JULY FOURTH NINETEEN SIXTY TWO"),
    ("command", "GO BACK"),
    ("address", "NINETEEN ELM STREET"),
    ("spelling", "K A R E N"),
    ("number", "EIGHT HUNDRED AND TWELVE"),
    ("date", "WEDNESDAY MARCH THIRD"),
    ("command", "ENTER SEVEN"),
    ("address", "EIGHTY KING'S ROAD BRISTOL"),
    ("spelling", "B O W"),
    ("number", "NINE OH THREE SIX SIX TWO FOUR"),
    ("date", "THE TENTH OF MAY"),
    ("command", "STOP"),
    ("address", "FORTY MAPLE AVENUE"),
    ("spelling", "F I T Z"),
    ("number", "SEVENTEEN"),
    ("date", "NEW YEAR'S DAY"),
    ("command", "ERASE TWO FIVE"),
    ("address", "UNION STATION DENVER COLORADO"),
    ("spelling", "Q U I N N"),
    ("number", "ONE THOUSAND AND FORTY"),
    ("date", "OCTOBER TWENTY FIRST NINETEEN EIGHTY"),
    ("command", "REPEAT LAST THREE DIGITS"),
    ("address", "SIXTEEN HARBOUR LANE LEEDS"),
    ("spelling", "J A V I E R"),
    ("number", "FIVE FIVE FIVE OH ONE NINE"),
    ("date", "MONDAY JUNE SECOND"),
    ("command", "RUBOUT X M"),
    ("address", "BOSTON"),
    ("spelling", "P A B L O"),
    ("number", "NINETY NINE"),
    ("date", "AUGUST TWENTY THIRD TWO THOUSAND TEN"),
    ("command", "HELP"),
    ("address", "SIX CHURCH HILL EDINBURGH"),
    ("spelling", "W A L D O"),
    ("number", "TWO HUNDRED SIXTY THREE"),
    ("date", "FEBRUARY NINTH NINETEEN NINETY FIVE"),
    ("command", "NO"),
    ("address", "OAK PARK ILLINOIS"),
    ("spelling", "G R A C E Y"),
    ("number", "SIX ONE FOUR EIGHT NINE THREE"),
    ("date", "EIGHTEENTH OF APRIL"),
    ("command", "YES"),
    ("address", "FIFTY FIVE O'HARA PLACE"),
    ("spelling", "L U X"),
    ("number", "THREE MILLION SIX THOUSAND"),
    ("date", "DECEMBER THIRTY FIRST"),
    ("command", "STOP AND START AGAIN"),
    ("address", "SEVENTY RIVER BEND DRIVE"),
    ("spelling", "D E V I N"),
    ("number", "FIFTY ONE POINT SIX"),
    ("date", "SEPTEMBER NINETEEN FORTY SEVEN"),
    ("command", "GO TO LINE THIRTY EIGHT"),
    ("address", "TWELVE CASTLE SQUARE"),
    ("spelling", "N O V A K"),
    ("number", "SEVEN SEVEN OH TWO ONE FIVE FOUR"),
    ("date", "FRIDAY THE THIRTEENTH OF JULY"),
    ("command", "ENTER A NINE J"),
    ("address", "MARKET STREET PORTLAND OREGON"),
    ("spelling", "H U G H"),
    ("number", "ZERO"),
    ("date", "NOVEMBER SIXTH TWO THOUSAND"),
    ("command", "CLEAR Z AND START"),
)


def check_espeak(any_version):
    """Exit with one line unless the espeak-ng that made the corpus is there."""
    try:
        version = espeak.version()
    except UserError as error:
        sys.exit(f"make_sample.py: {error}")
    if version != ESPEAK_VERSION and not any_version:
        sys.exit(
            f"make_sample.py: espeak-ng is {version}, not {ESPEAK_VERSION}, so the audio would "
            "differ; pass --any-version to go on"
        )


def finish(speech, rng):
    """Return the speech at the common level, with edges and a low noise floor, as 16 bit."""
    speech = np.pad(speech * (PEAK / np.abs(speech).max()), round(EDGE_SECONDS * SAMPLE_RATE))
    speech = speech + rng.normal(scale=NOISE_RMS, size=len(speech))
    return np.round(speech * 32767).astype(np.int16)


def line_of(index):
    """What espeak-ng is to say for one utterance; the id is its file's path."""
    path = f"audio/sample-{index + 1:03d}.flac"
    voice = VOICES[index % len(VOICES)]
    return espeak.Line(path, TEXTS[index][1], voice, 35 + 7 * index % 31, 130 + 11 * index % 41)


def make_utterance(index, folder):
    """Write one utterance's FLAC file and return its row of transcripts.tsv."""
    line = line_of(index)
    samples = finish(espeak.say(line), np.random.default_rng([SEED, index]))
    soundfile.write(folder / line.id, samples, SAMPLE_RATE, subtype="PCM_16")
    speaker, accent = line.voice.replace("+", "-"), line.voice.split("+")[0]
    style = TEXTS[index][0]
    return line.id, line.transcript, speaker, style, accent, line.pitch, line.words_per_minute


def main():
    """Make the corpus in the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="output folder, made where missing")
    parser.add_argument(
        "--any-version", action="store_true", help=f"go on without espeak-ng {ESPEAK_VERSION}"
    )
    args = parser.parse_args()
    check_espeak(args.any_version)
    (args.folder / "audio").mkdir(parents=True, exist_ok=True)
    rows = [make_utterance(index, args.folder) for index in range(len(TEXTS))]
    with open(args.folder / "transcripts.tsv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows([FIELDS, *rows])


if __name__ == "__main__":
    main()
