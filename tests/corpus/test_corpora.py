"""Corpora as they are published, each with the traps of its format."""

import gzip
import io
import json
import re
import tarfile
import unicodedata

import numpy as np
import pytest
import soundfile
from deepspeech2.cli import UserError
from deepspeech2.corpus import layouts
from helpers import assert_one_line_error, run_corpus, tone


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


def stm(root):
    sound(root / "sph/Talk_1.wav", 3.0)
    sound(root / "sph/Talk_2.SPH.flac", 1.0, 1)
    write(
        root / "stm/Talk_1.stm",
        ";; a comment\n"
        "Talk_1 1 speaker1 0.00 0.75 <o,f0,male> go on\r\n"
        "Talk_1 1 inter_segment_gap 0.75 1.00 <o,,> ignore_time_segment_in_scoring\n"
        "Talk_1 1 speaker2 1.00 3.00 stop",
    )
    write(root / "stm/Talk_2.stm", "Talk_2.SPH A me 0 1 <NA> it 's\n")
    return root


def recording(name, path, seconds, **more):
    source = {"type": "file", "channels": [0], "source": path}
    return {
        "id": name, "sources": [source], "sampling_rate": 16000,
        "num_samples": round(16000 * seconds), "duration": seconds, **more,
    }  # fmt: skip


def write_lines(path, rows):
    data = "\n".join(map(json.dumps, rows)).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def lhotse(root):
    sound(root / "wavs/a.wav", 2.0)
    write_lines(root / "x_recordings_dev.jsonl.gz", [recording("a", "wavs/a.wav", 2.0)])
    rows = [
        {"id": "a-1", "recording_id": "a", "start": 0.0, "duration": 2.0, "channel": 0,
         "text": "GO ON", "language": "English", "speaker": "me"},
        {"id": "a-2", "recording_id": "a", "start": 0.5, "duration": 0.25, "channel": 0,
         "text": "STOP", "alignment": {"word": []}},
    ]  # fmt: skip
    return write_lines(root / "x_supervisions_dev.jsonl.gz", rows)


def cuts(root):
    sound(root / "wavs/a.wav", 2.0)
    told = {"id": "s1", "recording_id": "a", "start": 0.25, "duration": 0.5, "channel": 0}
    cut = {
        "id": "c1", "start": 0.5, "duration": 1.0, "channel": 0, "type": "MonoCut",
        "supervisions": [{**told, "text": "GO ON"}], "recording": recording("a", "wavs/a.wav", 2.0),
    }  # fmt: skip
    return write_lines(root / "cuts.jsonl", [cut]).parent


def hf_audiofolder(root, kind="csv"):
    sound(root / "train/data/a b.wav")
    sound(root / "test/c.flac", seed=1)
    if kind == "csv":
        write(root / "train/metadata.csv", 'file_name,transcription\n"data/a b.wav","go, on"\n')
        write(root / "test/metadata.csv", "\ufefffile_name,transcription,age\r\nc.flac,stop,3\r\n")
    else:
        rows = [{"file_name": "train/data/a b.wav", "text": "go, on"},
                {"file_name": "test/c.flac", "text": "stop", "sentence": "x"}]  # fmt: skip
        write_lines(root / "metadata.jsonl", rows)
    write(root / "README.md", "a card")
    return root


def parquet(root, **more):
    pyarrow = pytest.importorskip("pyarrow", reason="needs envs/parquet.txt")
    from pyarrow import parquet

    def recorded(seed, name):
        data = io.BytesIO()
        soundfile.write(data, tone(0.5, seed), 16000, format="FLAC")
        return {"bytes": data.getvalue(), "path": name}

    rows = {
        "audio": [recorded(0, "clips/a-1.flac"), recorded(1, None)],
        "text": ["go on", "stop"], "speaker_id": [84, 85], **more,
    }  # fmt: skip
    path = root / "data/test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(rows), path, row_group_size=1)
    return root


def v2_csv(root):
    sound(root / "an4/wav/a 1.wav")
    write(root / "an4/txt/a 1.txt", "GO ON\n")
    return write(root / "m.csv", "an4/wav/a 1.wav,an4/txt/a 1.txt\n")


def v2_folders(root):
    for part in ("train", "val"):
        sound(root / part / "wav/a.wav")
        write(root / part / "txt/a.txt", "GO ON\n")
    return root


CORPORA = {
    "librispeech": (librispeech, {"84-121123-0000": "GO ON", "84-121123-0001": "STOP"}),
    "commonvoice": (commonvoice, {"a": '"Go" on "', "b c": "Stop"}),
    "nemo": (nemo, {"wavs/a": "go on", "long_250": "stop", "long_1000": "é"}),
    "kaldi": (kaldi, {"a": "GO ON", "b": "STOP"}),
    "ljspeech": (ljspeech, {"LJ001-0001": "In eighteen", "LJ001-0002": "Go on"}),
    "deepspeech_csv": (deepspeech_csv, {"a b/1": "go, on"}),
    "stm": (
        stm, {"Talk_1_1_0": "go on", "Talk_1_1_1000": "stop", "Talk_2.SPH_A_0": "it 's"},
    ),
    "lhotse": (lhotse, {"a-1": "GO ON", "a-2": "STOP"}),
    "lhotse cuts": (cuts, {"s1": "GO ON"}),
    "hf_audiofolder": (hf_audiofolder, {"train/data/a b": "go, on", "test/c": "stop"}),
    "parquet": (parquet, {"a-1": "go on", "test-00000-of-00001_1": "stop"}),
    "manifest": (v2_csv, {"an4/wav/a 1": "GO ON"}),
    "folder": (v2_folders, {"train/wav/a": "GO ON", "val/wav/a": "GO ON"}),
}  # fmt: skip


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
    name, source = name.split()[0], make(tmp_path / "my corpus")
    found, _, layout = read(name, source)
    assert {key: u.text for key, u in found.items()} == expected
    assert layouts.find(source) == name
    watched = set(layout.files())
    assert len(watched) > len({u.audio for u in found.values()}) or name == "parquet"


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
        ('{"audio_filepath": "a.wav", "text": "a", "offset": "x", "duration": 1}', "offset: 'x'"),
        ('{"audio_filepath": "a.wav", "text": "a", "offset": NaN, "duration": 1}', "object .*NaN"),
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


def test_the_cases_of_deepspeech_pytorch(shared):
    data = shared / "cases/other_corpora/data"
    assert layouts.find(data / "v2.csv") == "manifest"


def test_the_segments_of_stm_and_lhotse(tmp_path):
    found, sounds, layout = read("stm", stm(tmp_path / "s"))
    assert found["Talk_1_1_1000"][3:] == ("speaker2", 1.0, 3.0, 0)
    assert len(sounds["Talk_1_1_0"].samples) == 12000
    assert layout.passed_over.keys() == {"other"}
    found, sounds, _ = read("lhotse", lhotse(tmp_path / "l"))
    assert found["a-1"][3:] == ("me", 0.0, None, None)
    assert found["a-2"][3:] == ("", 0.5, 0.75, None)
    found, sounds, _ = read("lhotse", cuts(tmp_path / "c"))
    whole, _ = soundfile.read(tmp_path / "c/wavs/a.wav", dtype="int16")
    np.testing.assert_array_equal(sounds["s1"].samples, whole[12000:20000])


def test_stereo_recordings_have_an_utterance_for_each_channel(tmp_path):
    samples = np.stack([tone(1.0, 0), tone(1.0, 1)], axis=1)
    (tmp_path / "wavs").mkdir()
    for name in ("call.wav", "wavs/a.wav"):
        soundfile.write(tmp_path / name, samples, 16000)
    mono = [soundfile.read(tmp_path / "call.wav", dtype="int16")[0][:, i] for i in (0, 1)]
    marks = write(tmp_path / "call.stm", "call A me 0 1 <> go\ncall B you 0 0.5 on\n")
    _, sounds, _ = read("stm", marks)
    np.testing.assert_array_equal(sounds["call_A_0"].samples, mono[0])
    np.testing.assert_array_equal(sounds["call_B_0"].samples, mono[1][:8000])
    held = recording("a", "wavs/a.wav", 1.0)
    held["sources"][0]["channels"] = [0, 1]
    write_lines(tmp_path / "recordings.jsonl", [held])
    rows = [{"id": str(c), "recording_id": "a", "start": 0, "duration": 1.0, "channel": c,
             "text": "go"} for c in (0, 1, [0, 1])]  # fmt: skip
    _, sounds, _ = read("lhotse", write_lines(tmp_path / "supervisions.jsonl", rows))
    for channel in (0, 1):
        np.testing.assert_array_equal(sounds[str(channel)].samples, mono[channel])
    assert sounds["[0, 1]"].notes == ["2 channels averaged, which differ"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Talk_1 1 me 0.0", "line 1: not file, channel"),
        ("Talk_1 9 me 0.0 1.0 go", "line 1: channel '9'"),
        ("Talk_1 1 me x 1.0 go", "line 1: start: 'x'"),
        ("Talk_1 1 me 1.0 0.5 go", "not a time in the recording"),
        ("Talk_1 1 me 0.0 9.5 go", "ends at 3.000 s"),
        ("Talk_1 1 me 0.0 1.0 <o> go <unk> on", r"skip: \[unsupported\]"),
        ("Talk_1 1 me 0.0 1.0 <unk> on", r"skip: \[unsupported\]"),
        ("Talk_1 1 me 0.0 1.0 {go / stop} on", r"skip: \[unsupported\]"),
        ("Talk_1 1 me 0.0 1.0 <o>", r"skip: \[empty_text\]"),
        ("Talk_9 1 me 0.0 1.0 go", r"skip: \[no_audio"),
        ("../../x 1 me 0.0 1.0 go", "line 1.*outside"),
    ],
)
def test_stm_that_is_refused(tmp_path, line, words):
    write(stm(tmp_path / "s") / "stm/Talk_1.stm", line + "\n")
    refuse("stm", tmp_path / "s", words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sources": [{"type": "command", "channels": [0], "source": "touch RAN"}]}, "unsupported"),
        ({"sources": [{"type": "url", "channels": [0], "source": "http://x"}]}, "unsupported"),
        ({"transforms": [{"name": "Speed", "kwargs": {"factor": 0.9}}]}, "unsupported"),
        ({"sources": [{"type": "file", "channels": [1], "source": "wavs/a.wav"}]}, "unsupported"),
        ({"sources": [{"type": "file", "channels": [0], "source": "/etc/passwd"}]}, "outside"),
        ({"sources": [{"type": "file", "channels": [0], "source": "b.wav"}]}, "no_audio"),
        ({"sources": 3}, "sources: not a list"),
        ({"sources": []}, "unsupported"),
        ({"id": "b"}, "no_audio"),
        ({"duration": "long"}, "duration"),
    ],
)
def test_lhotse_that_is_refused(tmp_path, monkeypatch, change, words):
    monkeypatch.chdir(tmp_path)
    source = lhotse(tmp_path / "l")
    changed = {**recording("a", "wavs/a.wav", 2.0), **change}
    write_lines(tmp_path / "l/x_recordings_dev.jsonl.gz", [changed])
    refuse("lhotse", source, words)
    assert not list(tmp_path.rglob("RAN"))


@pytest.mark.parametrize("silent", [(0, 2), (1, 3, 4), (5,), (0, 1, 2, 3, 4)])
def test_a_silent_segment_costs_no_other(tmp_path, silent):
    wave = np.concatenate([tone(1.0, n) * (n not in silent) for n in range(6)])
    soundfile.write(tmp_path / "a.wav", wave, 16000)
    rows = [{"audio_filepath": "a.wav", "offset": n, "duration": 1, "text": str(n)}
            for n in (3, 1, 0, 5, 4, 2)]  # fmt: skip
    source = write_lines(tmp_path / "m.json", rows)
    refuse("nemo", source, rf"at {silent[0]} s: holds only digital silence.*skip: \[unreadable\]")
    found, sounds, layout = read("nemo", source, skip=["unreadable"])
    assert {int(u.text) for u in found.values()} == set(range(6)) - set(silent)
    assert len(layout.passed_over["unreadable"]) == len(silent)
    whole, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    for key, part in sounds.items():
        start = 16 * int(key.partition("_")[2])
        np.testing.assert_array_equal(part.samples, whole[start : start + 16000])


def test_a_cut_recording_counts_for_each_of_its_segments(tmp_path):
    sound(tmp_path / "a.wav", 8.0)
    sound(tmp_path / "b.wav", 1.0)
    rows = [{"audio_filepath": "a.wav", "offset": n, "duration": 1, "text": "go"} for n in range(8)]
    source = write_lines(tmp_path / "m.json", [*rows, {"audio_filepath": "b.wav", "text": "on"}])
    (tmp_path / "a.wav").write_bytes(b"no sound")
    found, _, layout = read("nemo", source, skip=["unreadable"])
    assert list(found) == ["b"] and len(layout.passed_over["unreadable"]) == 8


def test_manifests_of_lhotse_that_are_refused(tmp_path):
    table = lhotse(tmp_path / "l")
    (tmp_path / "l/x_recordings_dev.jsonl.gz").rename(tmp_path / "l/other.jsonl.gz")
    refuse("lhotse", table, "no recordings beside it")
    data = table.read_bytes()
    for cut in (data[:-9], data[: len(data) // 2]):
        table.write_bytes(cut)
        refuse("lhotse", table, "x_supervisions_dev")
    folder = cuts(tmp_path / "c")
    row = json.loads((folder / "cuts.jsonl").read_text())
    write_lines(folder / "cuts.jsonl", [{**row, "type": "MixedCut"}])
    refuse("lhotse", folder, r"skip: \[unsupported\]")
    mixed = {"id": "m", "type": "MixedCut", "tracks": [{"cut": row, "offset": 0.0}]}
    write_lines(folder / "cuts.jsonl", [mixed, row])
    refuse("lhotse", folder, r"1 unsupported.*a MixedCut.*skip: \[unsupported\]")
    told = {**row["supervisions"][0], "start": -0.5}
    write_lines(folder / "cuts.jsonl", [{**row, "supervisions": [told]}])
    assert read("lhotse", folder)[0]["s1"][4:6] == (0.0, 0.5)
    write_lines(folder / "cuts.jsonl", [{**row, "supervisions": [{**told, "start": -0.6}]}])
    refuse("lhotse", folder, "start: -0.1 is not a number of seconds")
    write_lines(folder / "cuts.jsonl", [{**row, "supervisions": []}])
    refuse("lhotse", folder, r"skip: \[no_text\]")
    write_lines(folder / "cuts_2.jsonl", [row])
    refuse("lhotse", folder, "several manifests")


def test_hugging_face_folders(tmp_path):
    found, _, layout = read("hf_audiofolder", hf_audiofolder(tmp_path / "j", "jsonl"))
    assert {u.text for u in found.values()} == {"go, on", "stop"}
    rows = [{"file_name": "train/data/a b.wav", "text": None},
            {"file_name": "test/c.flac", "text": ""}]  # fmt: skip
    write_lines(tmp_path / "j/metadata.jsonl", rows)
    refuse("hf_audiofolder", tmp_path / "j", r"2 empty_text")
    layout = read("hf_audiofolder", hf_audiofolder(tmp_path / "c"))[2]
    assert layout.official == {"train/data/a b": "train", "test/c": "test"}
    sound(tmp_path / "c/test/more.wav")
    refuse("hf_audiofolder", tmp_path / "c", r"1 no_text.*more.wav")
    (tmp_path / "c/test/more.wav").unlink()
    for text, words in (
        ("file_name,label\nc.flac,3\n", "line 2: needs file_name and one of text"),
        ("file_name,text\n../../x.wav,go\n", "line 2.*outside"),
        ("file_name,text\nc.flac,go,on\n", "line 2: 3 cells"),
    ):
        write(tmp_path / "c/test/metadata.csv", text)
        refuse("hf_audiofolder", tmp_path / "c", words)


def test_parquet(tmp_path):
    found, _, layout = read("parquet", parquet(tmp_path / "p"))
    assert {u.speaker for u in found.values()} == {"84", "85"}
    assert set(layout.parts_of(list(found.values())).values()) == {"test"}
    refuse("parquet", parquet(tmp_path / "t", text=["go", None]), r"skip: \[empty_text\]")
    refuse("parquet", parquet(tmp_path / "x", text=[1, 2]), "text: 1 is not a text")
    damaged = parquet(tmp_path / "d", text=["go", "stop"])
    file = next(damaged.rglob("*.parquet"))
    file.write_bytes(file.read_bytes().replace(b"stop", b"st\xffp"))
    refuse("parquet", damaged, "not whole Parquet .*decode")
    none = [{"bytes": None, "path": "a.wav"}, {"bytes": b"x", "path": "b.wav"}]
    refuse("parquet", parquet(tmp_path / "n", audio=none), "row 1, b.wav: not readable")
    found, _, layout = read("parquet", parquet(tmp_path / "s"), skip=["no_audio"])
    path = next((tmp_path / "p").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-100])
    refuse("parquet", path, "not whole Parquet")


TABLES = {
    "t.tsv": "who\tsaid\tclip\tfrom\tfor\nme\tgo on\ta.wav\t0.5\t0.25\n\tstop\ta.wav\t1\t1\n",
    "t.csv": 'clip,said,from,for,who\na.wav,"go on",0.5,0.25,me\na.wav,stop,1,1,\n',
    "t.jsonl": '{"clip": "a.wav", "said": "go on", "from": 0.5, "for": 0.25, "who": "me"}\n'
    '{"clip": "a.wav", "said": "stop", "from": 1, "for": 1, "who": null, "x": []}\n',
}
COLUMNS = {"path": "clip", "transcript": "said", "speaker": "who", "start": "from"}


@pytest.mark.parametrize("name", TABLES)
def test_tables_with_columns_of_your_own(tmp_path, name):
    sound(tmp_path / "a.wav", 2.0)
    source = write(tmp_path / name, TABLES[name])
    found, sounds, _ = read("table", source, columns={**COLUMNS, "duration": "for"})
    assert {u[2:] for u in found.values()} == {
        ("go on", "me", 0.5, 0.75, None), ("stop", "", 1.0, 2.0, None),
    }  # fmt: skip
    assert len(sounds["a_500"].samples) == 4000
    for role, heading in (("end", "until"), ("id", "key"), ("transcript", "text")):
        with pytest.raises(UserError, match=heading):
            read("table", source, columns={**COLUMNS, role: heading})
    with pytest.raises(UserError, match="who"):
        read("table", source, columns={**COLUMNS, "start": "who"})


def test_parts_of_their_own(tmp_path):
    for part in ("train-clean-5", "dev-clean-2"):
        librispeech(tmp_path / "L" / part)
    chapter = tmp_path / "L/dev-clean-2/84/121123"
    for path in chapter.iterdir():
        path.rename(path.with_name(path.name.replace("84-", "85-")))
    texts = chapter / "85-121123.trans.txt"
    texts.write_text(texts.read_text().replace("84-", "85-"))
    found, _, layout = read("librispeech", tmp_path / "L")
    parts = layout.parts_of(list(found.values()))
    assert {name[:2]: part for name, part in parts.items()} == {"84": "train", "85": "val"}
    source = commonvoice(tmp_path / "cv").parent
    sound(source / "clips/d.mp3")
    write(source / "dev.tsv", "client_id\tpath\tsentence\nme\td.mp3\tGo\n")
    found, _, layout = read("commonvoice", source)
    assert layouts.find(source) == "commonvoice"
    assert layout.parts_of(list(found.values())) == {"a": "test", "b c": "test", "d": "val"}


def packed(path, folder):
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "LibriSpeech/dev-clean-2")
    return path


def test_a_corpus_in_its_archive(tmp_path):
    source = packed(tmp_path / "x.tar.gz", librispeech(tmp_path / "l"))
    done = run_corpus("librispeech", source, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    index = json.loads((tmp_path / "out/corpus.json").read_text())
    assert {u["id"]: u["split"] for u in index["utterances"]} == {
        "84-121123-0000": "val", "84-121123-0001": "val",
    }  # fmt: skip
    assert not (tmp_path / "out/corpus/archive").exists()
    table = commonvoice(tmp_path / "cv")
    source = packed(tmp_path / "cv.tar.gz", table.parent)
    within = "LibriSpeech/dev-clean-2/test.tsv"
    done = run_corpus("commonvoice", source, tmp_path / "cv_out", f"--within={within}")
    assert done.returncode == 0, done.stderr
    for wrong in ("../../x", "LibriSpeech/none"):
        done = run_corpus("commonvoice", source, tmp_path / "no", f"--within={wrong}")
        assert done.returncode == 1 and "within" in done.stderr, done.stderr
    done = run_corpus("commonvoice", table, tmp_path / "no", "--within=x")
    assert done.returncode == 1 and "not an archive" in done.stderr


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, "twice"])
def test_an_archive_that_is_refused(tmp_path, kind):
    source = packed(tmp_path / "x.tar", librispeech(tmp_path / "l"))
    with tarfile.open(tmp_path / "y.tar", "w") as archive:
        archive.add(tmp_path / "l", "a")
        for name in ("a/x", "a/x") if kind == "twice" else ("a/x",):
            member = tarfile.TarInfo(name)
            if kind != "twice":
                member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    source = tmp_path / "y.tar"
    done = run_corpus("librispeech", source, tmp_path / "out")
    assert done.returncode == 1 and "a/x" in done.stderr, done.stderr
    assert not (tmp_path / "out/corpus").exists()


@pytest.mark.parametrize("content", ["a|GO|go\nb|left | right\n", "a|GO\nb|left | right\n"])
def test_lines_of_ljspeech_have_as_many_cells_as_the_first(tmp_path, content):
    for name in "ab":
        sound(tmp_path / f"wavs/{name}.wav")
    write(tmp_path / "metadata.csv", content)
    if content.count("|") == 2 + 1:
        refuse("ljspeech", tmp_path, "line 2: 3 cells, not everywhere")
    else:
        assert read("ljspeech", tmp_path)[0]["b"].text == "right"


def test_a_duration_without_a_start_is_that_of_the_recording(tmp_path):
    sound(tmp_path / "a.wav", 2.0)
    row = {"audio_filepath": "a.wav", "text": "go"}
    for told, fits in ((2.0, True), (1.9, True), (0, True), (None, True), (1.0, False), (9, False)):
        source = write_lines(tmp_path / "m.json", [{**row, "duration": told}])
        if fits:
            assert len(read("nemo", source)[1]["a"].samples) == 32000
        else:
            refuse("nemo", source, f"'a': a duration of {told:g} s, but the recording has 2.000 s")
    table = write(tmp_path / "t.csv", "path,transcript,for,from\na.wav,GO,1,\n")
    with pytest.raises(UserError, match="a duration of 1 s"):
        read("table", table, columns={"duration": "for", "start": "from"})
    write_lines(tmp_path / "recordings.jsonl", [recording("a", "a.wav", 4.0)])
    told = {"id": "s", "recording_id": "a", "start": 0, "duration": 4.0, "channel": 0, "text": "GO"}
    refuse("lhotse", write_lines(tmp_path / "supervisions.jsonl", [told]), "a duration of 4 s")
    source = write_lines(
        tmp_path / "m.json", [{**row, "offset": 0, "duration": None, "speaker": 0}]
    )
    found, sounds, _ = read("nemo", source)
    assert len(sounds["a_0"].samples) == 32000 and found["a_0"].speaker == "0"


def test_recordings_that_no_segment_is_of_are_counted(tmp_path):
    root = kaldi(tmp_path / "k", segments=True)
    write(root / "segments", "a_1 a 0.0 0.5\na_2 a 0.50 -1\n")
    write(root / "text", "a_1 GO ON\na_2\tSTOP\n")
    refuse("kaldi", root, r"1 no_text.*no segment of 'b'")
    assert len(read("kaldi", root, skip=["no_text"])[0]) == 2
    source = lhotse(tmp_path / "l")
    held = [recording(key, "wavs/a.wav", 2.0) for key in "ab"]
    write_lines(tmp_path / "l/x_recordings_dev.jsonl.gz", held)
    refuse("lhotse", source, r"1 no_text.*no supervision of 'b'")
    assert len(read("lhotse", source, skip=["no_text"])[0]) == 2


@pytest.mark.parametrize("channel", ["1", "A", "2", "B"])
def test_a_channel_of_stm_is_that_channel(tmp_path, channel):
    """Also where no utterance is of another."""
    both = np.stack([tone(1.0, 0), tone(1.0, 1)], axis=1)
    soundfile.write(tmp_path / "call.wav", both, 16000)
    _, sounds, _ = read("stm", write(tmp_path / "call.stm", f"call {channel} me 0 1 go\n"))
    whole, _ = soundfile.read(tmp_path / "call.wav", dtype="int16")
    (part,) = sounds.values()
    np.testing.assert_array_equal(part.samples, whole[:, int(channel in "2B")])


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        ({"train": "a.wav", "test": "b.wav"}, {"train", "test"}),
        ({"data/train": "a.wav", "data/test": "b.wav"}, {"train", "test"}),
        ({"training": "a.wav", "validation": "b.wav"}, {"train", "val"}),
        ({"valentina": "a.wav", "tester": "b.wav", "devon": "c.wav"}, {"train", "val"}),
    ],
)
@pytest.mark.parametrize("one_table", [False, True])
def test_parts_of_hugging_face_are_named_by_folders(tmp_path, files, parts, one_table):
    root, rows = tmp_path / "x", []
    for folder, name in files.items():
        sound(root / folder / name)
        rows.append(f"{folder}/{name},go")
        if not one_table:
            write(root / folder / "metadata.csv", f"file_name,text\n{name},go\n")
    if one_table:
        write(root / "metadata.csv", "\n".join(["file_name,text", *rows]))
    found, _, layout = read("hf_audiofolder", root)
    assert set(layout.parts_of(list(found.values())).values()) == parts
    named = parts if "test" in parts or "validation" in files else set()
    assert set(filter(None, layout.official.values())) == named


def test_parquet_of_parts_whose_files_have_the_same_name(tmp_path):
    for part in ("train", "test"):
        source = next(parquet(tmp_path / part).rglob("*.parquet"))
        (tmp_path / "x" / part).mkdir(parents=True)
        source.rename(tmp_path / "x" / part / "0000.parquet")
    found, _, layout = read("parquet", tmp_path / "x", skip=["duplicate"])
    assert {"test/0000_1", "train/0000_1"} < found.keys()
    assert layout.official["test/0000_1"] == "test" and layout.official["train/0000_1"] == "train"


def test_a_clip_in_two_parts_stays_in_the_first(tmp_path):
    source = commonvoice(tmp_path).parent
    write(source / "train.tsv", "client_id\tpath\tsentence\nme\ta.mp3\tGo\n")
    refuse("commonvoice", source, "1 duplicate")
    found, _, layout = read("commonvoice", source, skip=["duplicate"])
    assert found["a"].text == "Go" and layout.official["a"] == "train"


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_that_are_written_otherwise_on_the_disk(tmp_path, forms):
    disk, said = (unicodedata.normalize(form, "é") for form in forms)
    sound(tmp_path / f"{disk}.wav")
    assert len(read("tsv", write(tmp_path / "t.csv", f"path,transcript\n{said}.wav,GO\n"))[0]) == 1
    (tmp_path / "t.csv").unlink()
    write(tmp_path / f"{said}.txt", "GO")
    assert len(read("folder", tmp_path)[0]) == 1
    sound(tmp_path / f"{said}.wav")
    refuse("folder", tmp_path, "1 duplicate")


@pytest.mark.parametrize("name", [".wave", ".caf", ".snd", ".nist", ".aifc", ".rf64"])
def test_other_names_of_formats_that_are_read(tmp_path, name):
    form = {".wave": "WAV", ".snd": "AU", ".aifc": "AIFF"}.get(name, name[1:].upper())
    soundfile.write(tmp_path / f"a{name}", tone(0.5), 16000, format=form, subtype="PCM_16")
    write(tmp_path / "a.txt", "GO")
    assert len(read("folder", tmp_path)[1]["a"].samples) == 8000


@pytest.mark.parametrize("name", ["nemo", "lhotse"])
def test_json_lines_in_gzip_are_no_archive(tmp_path, name):
    if name == "nemo":
        rows = nemo(tmp_path).read_text(encoding="utf-8-sig").splitlines()
        source = write_lines(tmp_path / "m.json.gz", list(map(json.loads, rows)))
    else:
        folder = cuts(tmp_path)
        source = write_lines(
            folder / "x.jsonl.gz", [json.loads((folder / "cuts.jsonl").read_text())]
        )
    done = run_corpus(name, source, tmp_path / "out")
    assert done.returncode == 0, done.stderr


def test_an_archive_of_the_oldest_kind(tmp_path):
    """Before `ustar`: its headers have no mark."""
    folder = librispeech(tmp_path / "l")
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(folder, "l")
    content = bytearray((tmp_path / "x.tar").read_bytes())
    for found in [*re.finditer(b"ustar", content)]:
        start = found.start() - 257
        content[start + 257 : start + 512] = bytes(255)
        content[start + 148 : start + 156] = b" " * 8
        content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])
    (tmp_path / "x.tar").write_bytes(content)
    done = run_corpus("librispeech", tmp_path / "x.tar", tmp_path / "out")
    assert done.returncode == 0, done.stderr


def test_archives_of_one_chapter_or_part_keep_its_part(tmp_path):
    def part(name, place):
        with tarfile.open(tmp_path / "x.tar", "w") as archive:
            archive.add(tmp_path / place, place)
        done = run_corpus(name, tmp_path / "x.tar", tmp_path / "out")
        assert done.returncode == 0, done.stderr
        index = json.loads((tmp_path / "out/corpus.json").read_text())
        return {u["split"] for u in index["utterances"]}

    (librispeech(tmp_path / "a/test-clean") / "SPEAKERS.TXT").unlink()
    assert part("librispeech", "a") == {"test"}
    hf_audiofolder(tmp_path / "b")
    assert part("hf_audiofolder", "b/test") == {"test"}


def test_names_that_cannot_both_be_written(tmp_path):
    sound(tmp_path / "x.wav")
    rows = "path,transcript,id\nx.wav,GO,a\nx.wav,NO,a.wav/b\n"
    source = write(tmp_path / "t.csv", rows)
    rules = json.dumps({"columns": {"id": "id"}})
    done = run_corpus("table", source, tmp_path / "out", "--rules", rules)
    assert_one_line_error(done, "'wav/a.wav' is of one ID and of others")
    done = run_corpus("tsv", write(tmp_path / "t.csv", "path,transcript\n,GO\n"), tmp_path / "out")
    assert_one_line_error(done, "line 2: names no file")


def test_a_supervision_of_no_channel(tmp_path):
    """Found by the fuzzer."""
    source = cuts(tmp_path)
    (path,) = tmp_path.glob("*.jsonl")
    path.write_text(path.read_text().replace('"channel": 0, "text"', '"channel": [], "text"'))
    refuse("lhotse", source, r"unsupported.*channel \[\]")
