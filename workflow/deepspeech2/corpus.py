"""Make a corpus: audio and transcripts of a dataset in one checked, uniform folder.

Reads an AN4 archive or folder, or own recordings (a folder of audio and text files, a table, or a
deepspeech.pytorch manifest), or has espeak-ng speak a table of texts, and writes `wav/<id>.wav`
(16 kHz, mono) and `txt/<id>.txt` with an index of every file's SHA-256. What cannot be read or
makes no sense stops it with one line.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from scipy.io import wavfile

from deepspeech2 import an4, audio, espeak, labels, recordings, stage
from deepspeech2.files import replacing_folder, sha256, write_json
from deepspeech2.stage import log

LAYOUTS = ("an4", "folder", "tsv", "manifest", "espeak")
CASES = {"keep": str, "upper": str.upper, "lower": str.lower}


def write_corpus(
    layout: str, source: str, folder: Path, text_case: str = "keep", pcm_sha256: str | None = None
) -> list:
    """Fill `folder` with the corpus and return its index entries, sorted by id."""
    if layout == "an4":
        bar = stage.progress(None, what="corpus", unit="utterance")

        def write(utterance, samples):
            _write_wav(folder, utterance, samples)
            bar.update()

        with bar:
            utterances = an4.read(source, write, pcm_sha256)
    elif layout == "espeak":
        log.info("spoken by %s %s", espeak.PROGRAM, espeak.version())
        lines = espeak.read(source)
        espeak.check_variants(lines)
        with ProcessPoolExecutor() as pool:
            spoken = stage.progress(pool.map(espeak.speak, lines), len(lines), "speak", "utterance")
            for line, samples in zip(lines, spoken):
                _write_wav(folder, line.id, samples)
        utterances = [an4.Utterance(x.id, "", x.voice, x.transcript) for x in lines]
    else:
        found = recordings.read(layout, source)
        utterances = []
        for recording in stage.progress(found, what="corpus", unit="utterance"):
            samples, notes = audio.read(recording.path)
            for note in notes:
                log.info("%s: %s", recording.path, note)
            _write_wav(folder, recording.id, samples)
            entry = an4.Utterance(recording.id, "", recording.speaker, recording.transcript)
            utterances.append(entry)
    return [_index_entry(folder, u, CASES[text_case](u.transcript)) for u in utterances]


def _write_wav(folder: Path, utterance: str, samples: np.ndarray) -> None:
    path = folder / "wav" / f"{utterance}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    # libsndfile would put the time of day into a float WAV; equal input shall give equal bytes.
    wavfile.write(str(path), audio.SAMPLE_RATE, samples)


def _index_entry(folder: Path, utterance: an4.Utterance, transcript: str) -> dict:
    wav = folder / "wav" / f"{utterance.id}.wav"
    txt = folder / "txt" / f"{utterance.id}.txt"
    txt.parent.mkdir(parents=True, exist_ok=True)
    txt.write_text(transcript + "\n", encoding="utf-8")
    return {
        "id": utterance.id,
        "split": utterance.split,
        "speaker": utterance.speaker,
        "transcript": transcript,
        "wav_sha256": sha256(wav),
        "txt_sha256": sha256(txt),
    }


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--layout", choices=LAYOUTS, required=True)
    parser.add_argument("--source", required=True, help="archive, folder, table or manifest")
    parser.add_argument("--pcm-sha256", metavar="TSV", help="AN4: hashes the audio must match")
    parser.add_argument("--text-case", choices=CASES, default="keep")
    parser.add_argument("--labels", required=True, help="the characters of its transcripts (JSON)")
    parser.add_argument("--corpus", required=True, help="folder to write")
    parser.add_argument("--index", required=True, help="index to write (JSON)")
    parser.add_argument("--labels-out", required=True, help="copy of the labels to write")
    args = stage.parse(parser, argv)

    found = labels.read(args.labels)
    with replacing_folder(args.corpus) as folder:
        utterances = write_corpus(args.layout, args.source, folder, args.text_case, args.pcm_sha256)
    write_json(args.index, {"layout": args.layout, "utterances": utterances})
    write_json(args.labels_out, found)
    log.info("%d utterances from %s", len(utterances), args.source)


if __name__ == "__main__":
    stage.run(main)
