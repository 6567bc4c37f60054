"""Speech made by espeak-ng: the table's checks, what is said, and the synthetic corpus's texts."""

import csv
import os
import shutil

import helpers
import numpy as np
import pytest
import soundfile
from conftest import ROOT
from deepspeech2.cli import UserError
from deepspeech2.corpus.layouts import espeak

RESOURCES = ROOT / "resources"
HEADER = "id\ttranscript\tvoice\tpitch\twords_per_minute\n"
LINE = "a-1\tGO ON\ten-us+m4\t50\t150\n"


@pytest.fixture
def program():
    """espeak-ng, without which a test skips."""
    if shutil.which(espeak.PROGRAM) is None:
        if os.environ.get("REQUIRE_ESPEAK"):
            pytest.fail("needs espeak-ng")
        pytest.skip("needs the program espeak-ng")


def table(folder, *lines, header=HEADER):
    path = folder / "texts.tsv"
    path.write_text(header + "".join(lines), encoding="utf-8")
    return path


def test_lines_are_read_by_id(tmp_path):
    lines = espeak.read(table(tmp_path, LINE.replace("a-1", "b"), LINE))
    assert [line.id for line in lines] == ["a-1", "b"]
    assert lines[0] == espeak.Line("a-1", "GO ON", "en-us+m4", 50, 150)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((), "no lines in it"),
        ((LINE, LINE), "'a-1' appears twice"),
        ((LINE.replace("a-1", "../a"),), "line 2: '../a' is not a valid id"),
        ((LINE.replace("GO ON", ""),), "line 2: '' is not a text"),
        ((LINE.replace("GO ON", '<audio src="/etc/passwd"/>'),), "is not a text of letters"),
        ((LINE.replace("GO ON", "GO 2"),), "'GO 2' is not a text of letters"),
        ((LINE.replace("en-us+m4", "--path=/x"),), "is not a voice"),
        ((LINE.replace("en-us+m4", "en+../../x"),), "is not a voice"),
        ((LINE.replace("en-us+m4", "-w/tmp/x"),), "is not a voice"),
        ((LINE.replace("50", "100"),), "pitch must be a whole number from 0 to 99"),
        ((LINE.replace("50", "5" * 5000),), "pitch must be a whole number from 0 to 99"),
        ((LINE.replace("150", "fast"),), "words_per_minute must be a whole number"),
        (("a\tGO\n",), "2 cells under 5 headings"),
    ],
)
def test_what_cannot_be_spoken_is_one_line(lines, words, tmp_path):
    with pytest.raises(UserError) as error:
        espeak.read(table(tmp_path, *lines))
    assert words in str(error.value) and "texts.tsv" in str(error.value)


def test_letters_are_spoken_as_letters():
    assert espeak.ssml("ENTER A B AND A") == (
        'enter <say-as interpret-as="characters">a b</say-as> and '
        '<say-as interpret-as="characters">a</say-as>'
    )
    assert espeak.ssml("RUBOUT NEW YEAR'S DAY") == "rub-out new year's day"


def corpus(folder, source):
    return helpers.run_corpus("espeak", source, folder, "--log", folder / "corpus.log")


def test_a_corpus_is_spoken_the_same_every_time(program, tmp_path):
    other = LINE.replace("a-1", "b/".strip("/")).replace("GO ON", "A B C")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        done = corpus(tmp_path / name, table(tmp_path, LINE, other))
        assert done.returncode == 0, done.stderr
    one, two = (tmp_path / name / "corpus.json" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    samples, rate = soundfile.read(tmp_path / "one" / "corpus" / "wav" / "b.wav", dtype="int16")
    assert rate == 16000 and 0.6 < len(samples) / rate < 3
    assert 0.05 < np.abs(samples).max() / 32768 < 0.75
    edge = samples[: int(0.04 * rate)].astype(float)
    assert 0 < np.sqrt((edge**2).mean()) < 400 and len(np.unique(edge)) > 3
    assert "spoken by espeak-ng" in (tmp_path / "one" / "corpus.log").read_text()


@pytest.mark.parametrize(
    ("voice", "words"),
    [("xx-nothing", "does not speak it"), ("en-us+nobody", "has no variant 'nobody'")],
)
def test_an_unknown_voice_is_one_line(program, tmp_path, voice, words):
    done = corpus(tmp_path, table(tmp_path, LINE.replace("en-us+m4", voice)))
    helpers.assert_one_line_error(done, "a-1", words)
    assert not (tmp_path / "corpus").exists()


def test_without_the_program_the_corpus_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = corpus(tmp_path, table(tmp_path, LINE))
    helpers.assert_one_line_error(done, "espeak-ng: no such program", "install the package")


# The synthetic corpus that the embedded model was trained on.


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_the_tracked_texts_are_what_the_script_writes(tmp_path):
    import subprocess
    import sys

    script = RESOURCES / "synthetic" / "make_texts.py"
    subprocess.run([sys.executable, script, tmp_path / "t.tsv"], check=True)
    assert (tmp_path / "t.tsv").read_bytes() == (RESOURCES / "synthetic/texts.tsv").read_bytes()


def test_training_texts_and_voices_are_not_those_of_the_tests():
    lines = espeak.read(RESOURCES / "synthetic" / "texts.tsv")
    assert len(lines) == 8000 and len({line.voice for line in lines}) > 300
    sample = rows(RESOURCES / "sample" / "transcripts.tsv")
    an4 = rows(RESOURCES / "an4" / "pcm_sha256.tsv")
    forbidden = {row["transcript"] for row in sample}
    forbidden |= {row["transcript"] for row in an4 if row["split"] == "test"}
    assert len(forbidden) > 150
    assert not forbidden & {line.transcript for line in lines}
    voices = {row["speaker"] for row in sample}
    assert len(voices) == 16
    assert not voices & {line.voice.replace("+", "-") for line in lines}


def test_the_samples_word_times_are_espeaks(program, monkeypatch):
    """Some are made again, from audio that equals the tracked: with an apostrophe, a hyphen that
    only espeak-ng is given, one word alone, and letters between words.
    """
    folder = RESOURCES / "sample"
    monkeypatch.syspath_prepend(str(folder))
    import make_sample
    import make_times

    if espeak.version() != make_sample.ESPEAK_VERSION:
        pytest.skip(f"needs espeak-ng {make_sample.ESPEAK_VERSION}")
    tracked = (folder / "word_times.ctm").read_text(encoding="utf-8").splitlines(keepends=True)
    chosen = [9, 28, 43, 58]
    names = {f"audio_sample-{number + 1:03d}" for number in chosen}
    found = make_times.lines_of(chosen)
    assert found == [line for line in tracked if line.split()[0] in names] and len(found) == 12
    with open(folder / "transcripts.tsv", newline="", encoding="utf-8") as file:
        texts = [row["transcript"] for row in csv.DictReader(file, delimiter="\t")]
    assert [line.split()[4] for line in tracked] == " ".join(texts).split()
    # Another take is refused, not timed.
    ((samples, rate, events),) = make_times.apart([13])
    samples[len(samples) // 2] ^= 64
    with pytest.raises(SystemExit, match="speaks it differently"):
        make_times.words_of(13, (samples, rate, events))
