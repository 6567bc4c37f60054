"""Corpora as they are published, each with the traps of its format."""

import json

import numpy as np
import pytest
import soundfile
from deepspeech2.cli import UserError
from deepspeech2.corpus import layouts
from helpers import tone


def sound(path, seconds=0.5, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(seconds, seed), 16000)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def librispeech(root):
    for name in ("84-121123-0000", "84-121123-0001"):
        sound(root / "84/121123" / f"{name}.flac")
    write(root / "84/121123/84-121123.trans.txt", "84-121123-0000 GO ON\n84-121123-0001 STOP")
    write(root / "SPEAKERS.TXT", "84 | F | dev-clean\n")
    return root


def commonvoice(root, head="client_id\tpath\tsentence\tup_votes\taccent"):
    sound(root / "clips/a.mp3")
    sound(root / "clips/b c.mp3", seed=1)
    rows = ['me\ta.mp3\t"Go" on "\t2\t', "you\tb c\tStop\t1\tx"]
    more = "\t" * (head.count("\t") - 4)
    return write(root / "test.tsv", "\r\n".join([head, *(row + more for row in rows)]) + "\r\n")


def nemo(root):
    sound(root / "wavs/a.wav")
    sound(root / "long.wav", 2.0, 1)
    rows = [
        {"audio_filepath": "wavs/a.wav", "duration": 0.5, "text": "go on", "lang": "en", "x": [1]},
        {"audio_filename": "long.wav", "offset": 0.25, "duration": 0.5, "text": "stop"},
        {"audio_filepath": "long.wav", "offset": 1, "duration": 1.0, "text": "é", "speaker": "me"},
    ]
    return write(root / "m.jsonl", "\ufeff" + "\n".join(map(json.dumps, rows)))


def kaldi(root, segments=False):
    sound(root / "a.wav", 2.0)
    sound(root / "b.wav", 1.0, 1)
    write(root / "wav.scp", "a a.wav\nb  b.wav\n")
    if segments:
        write(root / "segments", "a_1 a 0.0 0.5\na_2 a 0.50 -1\nb_1 b 0.25 1.0\n")
        write(root / "text", "a_1 GO ON\na_2\tSTOP\nb_1 YES SIR\n")
    else:
        write(root / "text", "a GO ON\nb\tSTOP\n")
    write(root / "utt2spk", "a me\na_1 me\na_2 me\nb you\nb_1 you\n")
    return root


def ljspeech(root):
    for name in ("LJ001-0001", "LJ001-0002"):
        sound(root / "wavs" / f"{name}.wav")
    write(root / "metadata.csv", 'LJ001-0001|In "1884|In eighteen\nLJ001-0002|Go on|\n')
    return root


def deepspeech_csv(root):
    sound(root / "a b/1.wav")
    return write(root / "t.csv", 'wav_filename,wav_filesize,transcript\na b/1.wav,16044,"go, on"\n')


CORPORA = {
    "librispeech": (librispeech, {"84-121123-0000": "GO ON", "84-121123-0001": "STOP"}),
    "commonvoice": (commonvoice, {"a": '"Go" on "', "b c": "Stop"}),
    "nemo": (nemo, {"wavs/a": "go on", "long_250": "stop", "long_1000": "é"}),
    "kaldi": (kaldi, {"a": "GO ON", "b": "STOP"}),
    "ljspeech": (ljspeech, {"LJ001-0001": "In eighteen", "LJ001-0002": "Go on"}),
    "deepspeech_csv": (deepspeech_csv, {"a b/1": "go, on"}),
}


def read(name, source, **rules):
    layout = layouts.create(name, source, layouts.Rules(**rules))
    sounds = {}
    found = layout.read(sounds.__setitem__)
    assert sounds.keys() == {u.id for u in found}
    return {u.id: u for u in found}, sounds, layout


def refuse(name, source, words):
    with pytest.raises(UserError, match=words):
        read(name, source)


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_is_read_and_known_by_its_marks(tmp_path, name):
    make, expected = CORPORA[name]
    source = make(tmp_path / "my corpus")
    found, _, layout = read(name, source)
    assert {key: u.text for key, u in found.items()} == expected
    assert layouts.find(source) == name
    watched = {path.name for path in layout.files()}
    assert len(watched) > len({u.audio for u in found.values()})


def test_segments_are_cut_from_one_recording(tmp_path):
    found, sounds, _ = read("kaldi", kaldi(tmp_path, segments=True))
    assert {k: (u.start, u.end, u.speaker) for k, u in found.items()} == {
        "a_1": (0.0, 0.5, "me"), "a_2": (0.5, None, "me"), "b_1": (0.25, 1.0, "you"),
    }  # fmt: skip
    whole, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    np.testing.assert_array_equal(sounds["a_1"].samples, whole[:8000])
    np.testing.assert_array_equal(sounds["a_2"].samples, whole[8000:])
    assert len(sounds["b_1"].samples) == 12000


@pytest.mark.parametrize(
    "head",
    [
        "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccent",
        "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tlocale\tsegment",
        "client_id\tpath\tsentence\tup_votes\taccents\tvariant\tlocale\tsegment",
    ],
)
def test_every_version_of_common_voice(tmp_path, head):
    found = read("commonvoice", commonvoice(tmp_path, head))[0]
    assert found["a"].text == '"Go" on "' and found["a"].speaker == "me"


def test_recordings_without_a_text_are_counted(tmp_path):
    libri, lj = librispeech(tmp_path / "l"), ljspeech(tmp_path / "j")
    sound(libri / "84/121123/84-121123-0009.flac")
    sound(lj / "wavs/more.wav")
    for name, source in (("librispeech", libri), ("ljspeech", lj)):
        refuse(name, source, r"1 no_text.*skip: \[no_text\]")
        assert read(name, source, skip=["no_text"])[2].passed_over["no_text"]


@pytest.mark.parametrize(
    ("place", "content", "words"),
    [
        ("wav.scp", "a touch RAN; cat a.wav |\nb b.wav\n", "line 1: a program, which is not run"),
        ("wav.scp", "a a.ark:15\nb b.wav\n", "line 1: an archive"),
        ("wav.scp", "a /etc/passwd\nb b.wav\n", "line 1.*allow_outside"),
        ("wav.scp", "a ../a.wav\nb b.wav\n", "line 1.*allow_outside"),
        ("wav.scp", "b b.wav\n", "'a' is not in wav.scp"),
        ("wav.scp", "a a.wav\na b.wav\nb b.wav\n", r"skip: \[duplicate\]"),
        ("text", "a GO\n", "no text of 'b'"),
        ("text", "a GO\nb \n", r"skip: \[empty_text\]"),
        ("segments", "a b\n", "line 1: not utterance, recording, start and end"),
        ("segments", "a a 0.0 9.0\nb b 0 1\n", "ends at 2.000 s"),
        ("segments", "a a 0.5 0.25\nb b 0 1\n", "not a time"),
        ("segments", "a a nan 1\nb b 0 1\n", "not"),
    ],
)
def test_kaldi_that_is_refused(tmp_path, monkeypatch, place, content, words):
    monkeypatch.chdir(tmp_path)
    root = kaldi(tmp_path / "data")
    write(root / place, content)
    refuse("kaldi", root, words)
    assert not list(tmp_path.rglob("RAN"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[]", "line 1: not a JSON object"),
        ("{", "line 1: not a JSON object"),
        ('{"text": "a"}', "line 1: needs audio_filepath and text; it has text"),
        ('{"audio_filepath": "a.wav"}', "line 1: needs audio_filepath and text"),
        ('{"audio_filepath": "a.wav", "text": "a", "offset": 1}', "line 1: duration: None"),
        ('{"audio_filepath": "a.wav", "text": "a", "offset": "1", "duration": 1}', "offset: '1'"),
        ('{"audio_filepath": "a.wav", "text": "a", "offset": NaN, "duration": 1}', "offset: nan"),
        ('{"audio_filepath": "absent.wav", "text": "a"}', "no_audio"),
        ('{"audio_filepath": "../a.wav", "text": "a"}', "allow_outside"),
        ('{"audio_filepath": "a.wav", "text": ""}', "empty_text"),
    ],
)
def test_nemo_that_is_refused(tmp_path, line, words):
    sound(tmp_path / "set/a.wav")
    refuse("nemo", write(tmp_path / "set/m.json", line + "\n"), words)


def test_other_tables_that_are_refused(tmp_path):
    root = ljspeech(tmp_path / "lj")
    write(root / "metadata.csv", "LJ001-0001\n")
    refuse("ljspeech", root, "line 1: 1 cells")
    table = commonvoice(tmp_path / "cv")
    write(table, "client_id\tpath\tsentence\nme\ta.mp3\tgo\ton\n")
    refuse("commonvoice", table, "line 2: 4 cells under 3 headings")
    write(table, "client_id\tpath\tsentence\nme\t../../a.mp3\tgo\n")
    refuse("commonvoice", table, "line 2.*outside")
    table = deepspeech_csv(tmp_path / "ds")
    write(table, "wav_filename,wav_filesize,transcript\na b/1.wav,1,go, on\n")
    refuse("deepspeech_csv", table, "line 2: 4 cells under 3 headings")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("commonvoice", "cv.tsv"), ("deepspeech_csv", "ds.csv"), ("tsv", "plain.csv"),
        ("tsv", "quoted.tsv"), ("librispeech", "libri"), ("nemo", "nemo.jsonl"),
    ],
)  # fmt: skip
def test_the_cases(shared, name, place):
    source = shared / "cases/other_corpora/data" / place
    assert layouts.find(source) == name
    assert {u.text.upper().strip(".") for u in read(name, source)[0].values()} == {"GO BACK"}


def test_the_case_of_kaldi(shared):
    source = shared / "cases/other_corpora/data/kaldi"
    assert layouts.find(source) == "kaldi"
    found = read("kaldi", source, allow_outside=True)[0]
    assert {u.text.upper() for u in found.values()} == {"GO BACK"}
