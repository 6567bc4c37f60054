"""Make word_times.ctm: when each word of the sample corpus is said, as espeak-ng itself tells.

The library speaks each utterance once more and reports the sample at which it begins each word and
phoneme. What was done to the speech afterwards (resampling, trimming, edges) is done again, and
must give the tracked audio, sample by sample.
"""

import argparse
import ctypes
import multiprocessing
import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import librosa
import numpy as np
import soundfile
from make_sample import (
    EDGE_SECONDS,
    SAMPLE_RATE,
    SEED,
    TEXTS,
    check_espeak,
    espeak,
    finish,
    line_of,
)

FOLDER = Path(__file__).resolve().parent
LIBRARY = "libespeak-ng.so.1"
# Of speak_lib.h: the library is called to the end of the text, and tells phonemes, too.
SYNCHRONOUS, PHONEME_EVENTS = 2, 1
SSML, BY_CHARACTER = 0x10, 1
RATE, PITCH = 1, 3
WORD, PHONEME = 1, 7
PAUSE = "_"  # what its names of pauses begin with


class Word(NamedTuple):
    """A word of an utterance: where its first sound starts and where it ends, in seconds.

    A stop's first sound is its release: the silence before it belongs to neither word.
    """

    text: str
    start: float
    end: float


class Event(ctypes.Structure):
    """espeak_EVENT."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


class Voice(ctypes.Structure):
    """espeak_VOICE, as it asks for a language."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("rest", ctypes.c_char * 64),
    )


CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event)
)


def synthesize(line):
    """What the library says: samples (n,) int16, their rate, and its events of words and phonemes
    as (type, place in the text from 0, sample, name). It speaks otherwise after another utterance,
    so a process may call this once.
    """
    library = ctypes.CDLL(LIBRARY)
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, None, PHONEME_EVENTS)
    parts, events = [], []

    def keep(samples, count, event):
        if samples and count:
            parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        for place in range(10**6):
            e = event[place]
            if not e.type:
                return 0
            if e.type in (WORD, PHONEME):
                events.append(
                    (e.type, e.text_position - 1, e.sample, e.name.decode(errors="replace"))
                )
        return 1

    callback = CALLBACK(keep)
    library.espeak_SetSynthCallback(callback)
    name = line.voice.encode()
    voice = Voice(languages=name)  # a language is not always a voice's name
    if library.espeak_SetVoiceByName(name):
        library.espeak_SetVoiceByProperties(ctypes.byref(voice))
    library.espeak_SetParameter(RATE, line.words_per_minute, 0)
    library.espeak_SetParameter(PITCH, line.pitch, 0)
    text = espeak.ssml(line.transcript).encode()
    library.espeak_Synth(text, len(text) + 1, 0, BY_CHARACTER, 0, SSML, None, None)
    library.espeak_Synchronize()
    return np.concatenate(parts), rate, events


def spoken(line, synthesized):
    """The speech of espeak.say(line), (n,) float32, and its words, in seconds from its start, of
    what `synthesize` gave.
    """
    samples, rate, events = synthesized
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        soundfile.write(wav, samples, rate, subtype="PCM_16")
        speech, _ = librosa.load(wav, sr=SAMPLE_RATE, res_type="soxr_hq")
    speech, (first, last) = librosa.effects.trim(speech, top_db=espeak.TRIM)
    cut, duration = first / SAMPLE_RATE, (last - first) / SAMPLE_RATE

    def seconds(sample):
        return min(max(0.0, sample / rate - cut), duration)

    texts = line.transcript.split()
    # Where the words stand in what is spoken; the tags' letters are none of theirs.
    plain = re.sub("<.*?>", lambda tag: " " * len(tag[0]), espeak.ssml(line.transcript))
    places = [word.start() for word in re.finditer(r"\S+", plain)]
    # Events of words include the silence before a stop, and where a vowel follows a nasal they
    # come at the nasal, up to 0.1 s early. Those of phonemes come with the sound.
    begins, sounds, pauses, current = {}, {}, {}, 0
    for kind, place, sample, name in events:
        if kind == WORD and place in places:
            current = places.index(place)
            begins.setdefault(current, sample)
        elif kind == PHONEME:
            into = pauses if name.startswith(PAUSE) else sounds
            into.setdefault(current, []).append(sample)
    if not [*begins] == [*sounds] == [*range(len(texts))]:
        sys.exit(f"make_times.py: {line.id}: espeak-ng tells of other words")
    found = []
    for number, text in enumerate(texts):
        start, last = sounds[number][0], sounds[number][-1]
        after = [*pauses.get(number, []), begins.get(number + 1, 0)]
        after.append(sounds[number + 1][0] if number + 1 in sounds else len(samples))
        found.append(Word(text, seconds(start), seconds(min(s for s in after if s > last))))
    return speech, found


def words_of(index, synthesized):
    """The id of an utterance of the sample, and its words in seconds of the tracked audio."""
    line = line_of(index)
    speech, words = spoken(line, synthesized)
    tracked, _ = soundfile.read(FOLDER / line.id, dtype="int16")
    made = finish(speech, np.random.default_rng([SEED, index]))
    if not np.array_equal(made, tracked):
        sys.exit(f"make_times.py: {line.id}: espeak-ng speaks it differently today")
    shift = round(EDGE_SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    name = str(Path(line.id).with_suffix("")).replace("/", "_")  # as sclite reads it
    return name, [Word(w.text, *(value + shift for value in w[1:])) for w in words]


def apart(indices):
    """What `synthesize` gives of utterances by number, each in a new process: what ran before in a
    process (another utterance, or who draws from the C library's rand) changes single samples.
    """
    with multiprocessing.get_context("spawn").Pool(2, maxtasksperchild=1) as pool:
        return pool.map(synthesize, map(line_of, indices), chunksize=1)


def lines_of(indices):
    """The lines of the file for utterances by number."""
    found = [words_of(*pair) for pair in zip(indices, apart(indices))]
    return [
        f"{name} 1 {w.start:.3f} {w.end - w.start:.3f} {w.text}\n" for name, ws in found for w in ws
    ]


def main():
    """Write the times of all utterances."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="CTM to write")
    args = parser.parse_args()
    check_espeak(False)
    args.file.write_text("".join(lines_of(range(len(TEXTS)))), encoding="utf-8")


if __name__ == "__main__":
    main()
