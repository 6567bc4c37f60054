"""Own recordings: folders, tables and manifests, good and bad."""

import json

import pytest
import soundfile
from deepspeech2 import recordings
from deepspeech2.stage import UserError
from helpers import assert_one_line_error, run_stage, tone, write_folder


def ids(layout, path):
    return [(r.id, r.transcript) for r in recordings.read(layout, path)]


def test_folder_with_subfolders_spaces_and_other_scripts(tmp_path):
    write_folder(tmp_path / "my set" / "größe")
    write_folder(tmp_path / "my set", ["HELLO   WORLD\n\n"], ".flac")
    assert ids("folder", tmp_path / "my set") == [
        ("größe/u0", "YES"),
        ("größe/u1", "GO ON"),
        ("größe/u2", "STOP"),
        ("u0", "HELLO WORLD"),
    ]


def test_table(tmp_path):
    write_folder(tmp_path / "a b")
    table = tmp_path / "t.tsv"
    table.write_text('path\ttranscript\tspeaker\na b/u1.wav\tJA "SO"\tme\na b/u0.wav\tNO\t\n')
    assert ids("tsv", table) == [("a b/u0", "NO"), ("a b/u1", 'JA "SO"')]
    assert recordings.read("tsv", table)[1].speaker == "me"


@pytest.mark.parametrize("absolute", [False, True])
def test_manifest_with_relative_or_absolute_root(tmp_path, absolute):
    root = write_folder(tmp_path / "data")
    samples = [{"wav_path": f"u{i}.wav", "transcript_path": f"u{i}.txt"} for i in (1, 0)]
    manifest = tmp_path / "m.json"
    manifest.write_text(
        json.dumps({"root_path": str(root) if absolute else "data", "samples": samples})
    )
    assert ids("manifest", manifest) == [("u0", "YES"), ("u1", "GO ON")]
    assert [s.id for s in recordings.read_manifest(manifest)] == ["u1", "u0"]  # its own order


def refuse(layout, path, *words):
    with pytest.raises(UserError) as error:
        recordings.read(layout, path)
    for word in words:
        assert word in str(error.value)


def test_bad_folders(tmp_path):
    refuse("folder", tmp_path / "absent", "no such folder")
    (tmp_path / "empty").mkdir()
    refuse("folder", tmp_path / "empty", "no recordings")
    folder = write_folder(tmp_path / "set")
    (folder / "u1.txt").write_text(" \n")
    refuse("folder", folder, "'u1'", "empty")
    (folder / "u1.txt").unlink()
    refuse("folder", folder, "u1.txt", "no such transcript")
    (folder / "u1.txt").write_bytes(b"\xff\xfe\x00")
    refuse("folder", folder, "u1.txt", "UTF-8")
    (folder / "u1.txt").write_text("YES")
    soundfile.write(folder / "u1.flac", tone(), 16000)
    refuse("folder", folder, "'u1'", "u1.flac", "u1.wav")


@pytest.mark.parametrize("link", ["u1.txt", "u1.wav"])
def test_links_that_leave_the_folder_are_refused(tmp_path, link):
    folder = write_folder(tmp_path / "set")
    secret = tmp_path / f"secret{link[2:]}"
    (folder / link).rename(secret)
    (folder / link).symlink_to(secret)
    refuse("folder", folder, "outside")


def test_bad_tables(tmp_path):
    table = tmp_path / "t.tsv"
    refuse("tsv", table, "no such table")
    table.write_text("path\ttext\na.wav\tYES\n")
    refuse("tsv", table, "line 2", "transcript")
    table.write_text("path\ttranscript\n../secret.wav\tYES\n")
    refuse("tsv", table, "line 2", "outside")
    table.write_text("path\ttranscript\n/etc/passwd\tYES\n")
    refuse("tsv", table, "outside")
    table.write_text("path\ttranscript\na.wav\tYES\nb/../a.wav\tNO\n")
    refuse("tsv", table, "two recordings", "'a'")
    table.write_bytes(b"\xff\xfe\x00\x01")
    refuse("tsv", table, "UTF-8")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("{", "line 1: broken JSON"),
        ("[]", "not a manifest"),
        ('{"root_path": "."}', "not a manifest"),
        ('{"root_path": ".", "samples": []}', "no recordings"),
        ('{"root_path": ".", "samples": [{"wav_path": "a.wav"}]}', "samples[0]"),
        ('{"root_path": ".", "samples": [{"wav_path": 1, "transcript_path": "a"}]}', "samples[0]"),
        ('{"root_path": ".", "samples": ["a.wav"]}', "samples[0]"),
        (
            '{"root_path": ".", "samples": [{"wav_path": "../a", "transcript_path": "b"}]}',
            "outside",
        ),
        (
            '{"root_path": ".", "samples": [{"wav_path": "a", "transcript_path": "b"}]}',
            "b: no such",
        ),
        ("[" * 100000, "nested too deeply"),
    ],
)
def test_bad_manifests(tmp_path, content, word):
    manifest = tmp_path / "m.json"
    manifest.write_text(content)
    refuse("manifest", manifest, word, str(tmp_path))


def corpus(tmp_path, source, layout="folder", *more):
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(list("_' ABCDEFGHIJKLMNOPQRSTUVWXYZ")))
    out = tmp_path / "out"
    return run_stage(
        "corpus", "--layout", layout, "--source", source, "--labels", labels,
        "--corpus", out / "corpus", "--index", out / "corpus.json",
        "--labels-out", out / "labels.json", *more,
    )  # fmt: skip


def test_corpus_stage_converts_and_is_repeatable(tmp_path):
    folder = write_folder(tmp_path / "set")
    soundfile.write(folder / "u0.wav", tone(0.5, rate=8000, channels=2), 8000, subtype="FLOAT")
    result = corpus(tmp_path, folder, "folder", "--text-case", "lower")
    assert result.returncode == 0, result.stderr
    assert "2 channels averaged" in result.stderr and "resampled from 8000 Hz" in result.stderr
    index = json.loads((tmp_path / "out/corpus.json").read_text())
    assert [u["transcript"] for u in index["utterances"]] == ["yes", "go on", "stop"]
    first = (tmp_path / "out/corpus.json").read_bytes()
    assert corpus(tmp_path, folder, "folder", "--text-case", "lower").returncode == 0
    assert (tmp_path / "out/corpus.json").read_bytes() == first
    info = soundfile.info(tmp_path / "out/corpus/wav/u0.wav")
    assert (info.samplerate, info.channels) == (16000, 1)


def test_a_failed_corpus_leaves_nothing_behind(tmp_path):
    folder = write_folder(tmp_path / "set")
    soundfile.write(folder / "u2.wav", tone()[:100], 16000)
    assert_one_line_error(corpus(tmp_path, folder), "u2.wav", "too short")
    assert not list((tmp_path / "out").glob("*")) and not list((tmp_path / "out").glob(".*"))


HOSTILE_IDS = [
    "../../escaped", "/tmp/escaped", "a/../../b", "", ".", "a//b", "x\n", "\ud800", "n" * 300
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_IDS)
def test_an_id_cannot_choose_where_files_are_written(tmp_path, name):
    write_folder(tmp_path / "set")
    sample = {"wav_path": "u0.wav", "transcript_path": "u0.txt", "id": name}
    manifest = tmp_path / "set" / "m.json"
    manifest.write_text(json.dumps({"root_path": ".", "samples": [sample]}))
    if name:  # an empty one counts as none given
        with pytest.raises(UserError, match="m.json"):
            recordings.read_manifest(manifest)
        assert_one_line_error(corpus(tmp_path, manifest, "manifest"), "m.json")
        assert not list(tmp_path.rglob("*escaped*")) and not list((tmp_path / "out").glob("*"))
    else:
        assert ids("manifest", manifest) == [("u0", "YES")]


@pytest.mark.parametrize("name", ["sub/..", "sub/../../set.wav", "out/u0.wav", "/u0.wav"])
def test_manifest_paths_that_leave_its_root_are_refused(tmp_path, name):
    folder = write_folder(tmp_path / "set")
    (folder / "sub").mkdir()
    (folder / "out").symlink_to(tmp_path)
    manifest = folder / "m.json"
    samples = [{"wav_path": path, "transcript_path": "u0.txt"} for path in ("u0.wav", name)]
    manifest.write_text(json.dumps({"root_path": ".", "samples": samples}))
    with pytest.raises(UserError, match=r"samples\[1\].*leads outside"):
        recordings.read_manifest(manifest)


@pytest.mark.parametrize("name", ["a\0b.wav", "loop.wav"])
def test_paths_that_no_system_can_open(tmp_path, name):
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    table = tmp_path / "t.tsv"
    table.write_text(f"path\ttranscript\n\n{name}\tYES\n")
    refuse("tsv", table, "line 3", "no usable path")


def test_names_that_are_not_utf_8(tmp_path):
    import os

    folder = write_folder(tmp_path / "set", ("YES",))
    for suffix in (b".wav", b".txt"):
        data = (folder / f"u0{suffix.decode()}").read_bytes()
        with open(os.fsencode(folder) + b"/gr\xf6" + suffix, "wb") as file:
            file.write(data)
    refuse("folder", folder, "rename")
    assert len(recordings.input_files("folder", folder)) == 2
    assert_one_line_error(corpus(tmp_path, folder), "rename")


def test_byte_order_marks_and_quotes_are_plain_text(tmp_path):
    folder = write_folder(tmp_path / "set", ("A", "B"))
    (folder / "u0.txt").write_text("YES", encoding="utf-8-sig")
    assert ids("folder", folder)[0] == ("u0", "YES")
    table = folder / "t.tsv"
    table.write_text('path\ttranscript\nu0.wav\t"YES"\nu1.wav\t"\n', encoding="utf-8-sig")
    assert ids("tsv", table) == [("u0", '"YES"'), ("u1", '"')]


def test_what_is_no_recording_is_left_out(tmp_path):
    import os

    folder = write_folder(tmp_path / "set", ("A",))
    (folder / "folder.wav").mkdir()
    os.mkfifo(folder / "pipe.wav")
    (folder / "._u0.wav").write_bytes(b"left by another system")
    (folder / "notes.md").write_text("x")
    assert ids("folder", folder) == [("u0", "A")]
    assert [name.rpartition("/")[2] for name in recordings.input_files("folder", folder)] == [
        "._u0.wav",
        "u0.txt",
        "u0.wav",
    ]
