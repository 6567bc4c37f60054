"""What is written of segments, whatever characters their words have."""

import json
import re

import pytest
from deepspeech2.scoring.times import Span
from deepspeech2.transcribe.formats import FORMATS, LINES, WIDTH, cues
from deepspeech2.transcribe.recognise import Segment

HOSTILE = ["-->", "<b>", "&amp;", "{\\an8}", "NOTE", "1", "WEBVTT", "00:00:00,000", "<script>"]


def segment(words, start=0.0, each=0.5):
    spans = [
        Span(word, start + n * each, start + (n + 0.8) * each, 0.5) for n, word in enumerate(words)
    ]
    return Segment(start, spans[-1].end, " ".join(words), spans)


def written(kind, *segments, name="a b.wav", several=False):
    out = []
    writer = FORMATS[kind](out.append, name, several)
    for one in segments:
        writer.segment(one)
    writer.close(12.5)
    assert all(part.endswith("\n") for part in out)  # whole lines, whenever it ends
    return "".join(out)


def test_text():
    assert written("text", segment(["GO", "ON"]), segment(["STOP"])) == "GO ON\nSTOP\n"
    several = written("text", segment(["GO"]), name="a\nb.wav", several=True)
    assert several == "a\\nb.wav: GO\n"


def test_json_is_one_line():
    text = written("json", segment(HOSTILE), segment(["STOP"], 9.0))
    assert text.count("\n") == 1
    found = json.loads(text)
    assert found["file"] == "a b.wav" and found["duration"] == 12.5
    assert found["text"] == " ".join([*HOSTILE, "STOP"])
    assert found["segments"][1] == {
        "start": 9.0, "end": 9.4, "text": "STOP", "words": [["STOP", 9.0, 9.4, 0.5]],
    }  # fmt: skip
    assert json.loads(written("json")) == {
        "file": "a b.wav", "duration": 12.5, "text": "", "segments": [],
    }  # fmt: skip


def test_ctm():
    assert written("ctm", segment(["GO", "ON"], 3.0)) == (
        "a_b 1 3.000 0.400 GO 0.5000\na_b 1 3.500 0.400 ON 0.5000\n"
    )


def test_srt():
    first, second = segment(["GO", "ON"]), segment(["STOP"], 3661.5)
    assert written("srt", first, second) == (
        "1\n00:00:00,000 --> 00:00:00,900\nGO ON\n\n2\n01:01:01,500 --> 01:01:01,900\nSTOP\n\n"
    )


def test_vtt():
    assert written("vtt", segment(["GO", "<ON>", "&"])) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.400\nGO &lt;ON&gt; &amp;\n\n"
    )


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_no_word_ends_a_cue_or_is_a_tag(kind):
    text = written(kind, segment(HOSTILE * 9))
    cues = [cue.split("\n") for cue in text.removeprefix("WEBVTT\n\n").strip().split("\n\n")]
    shown = []
    for cue in cues:
        times, *lines = cue[1:] if kind == "srt" else cue
        assert re.fullmatch(r"[\d:,.]{12} --> [\d:,.]{12}", times)
        assert 1 <= len(lines) <= LINES and all(line.strip() for line in lines)
        shown += lines
    assert len(re.findall("-->", text)) == len(cues)
    assert not re.search("[<>]", "".join(shown))
    assert sum(len(line.split()) for line in shown) == 9 * len(HOSTILE)


def test_cues_are_short():
    words = [Span("WORD" * (n % 4 + 1), n * 0.9, n * 0.9 + 0.5, 1.0) for n in range(60)]
    words += [Span("LATE", 100.0, 100.2, 1.0)]
    found = list(cues(words))
    assert [word for group, _ in found for word in group] == words
    for group, lines in found:
        assert len(lines) <= LINES and all(len(line) <= WIDTH for line in lines)
        assert group[-1].end - group[0].start <= 6
    assert found[-1][0] == words[-1:]
