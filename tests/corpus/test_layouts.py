"""Own recordings: folders, tables and manifests, good and bad."""

import json
import os

import pytest
import soundfile
from deepspeech2.cli import UserError
from deepspeech2.corpus import layouts, manifest
from helpers import assert_one_line_error, run_corpus, tone, write_folder


def read(layout, path):
    """The utterances of a corpus, each of which comes with its sound."""
    sounds = {}
    utterances = layouts.create(layout, path).read(sounds.__setitem__)
    assert list(sounds) == [u.id for u in utterances]
    return utterances


def ids(layout, path):
    return [(u.id, u.text) for u in read(layout, path)]


def refuse(layout, path, *words):
    with pytest.raises(UserError) as error:
        read(layout, path)
    for word in words:
        assert word in str(error.value)


def watched(layout, path):
    """Names of the files that the workflow watches."""
    return sorted(file.name for file in layouts.create(layout, path).files())


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
    assert read("tsv", table)[1].speaker == "me"
    assert watched("tsv", table) == ["t.tsv", "u0.wav", "u1.wav"]


@pytest.mark.parametrize("absolute", [False, True])
def test_manifest_with_relative_or_absolute_root(tmp_path, absolute):
    root = write_folder(tmp_path / "data")
    samples = [{"wav_path": f"u{i}.wav", "transcript_path": f"u{i}.txt"} for i in (1, 0)]
    path = tmp_path / "m.json"
    path.write_text(
        json.dumps({"root_path": str(root) if absolute else "data", "samples": samples})
    )
    assert ids("manifest", path) == [("u0", "YES"), ("u1", "GO ON")]
    assert [s.utterance.id for s in manifest.read(path)] == ["u1", "u0"]  # its own order
    assert watched("manifest", path) == ["m.json", "u0.txt", "u0.wav", "u1.txt", "u1.wav"]


def test_bad_folders(tmp_path):
    refuse("folder", tmp_path / "absent", "no such folder")
    (tmp_path / "empty").mkdir()
    refuse("folder", tmp_path / "empty", "no recordings")
    folder = write_folder(tmp_path / "set")
    (folder / "u1.txt").write_text(" \n")
    refuse("folder", folder, "'u1'", "empty")
    (folder / "u1.txt").unlink()
    refuse("folder", folder, "u1.wav", "1 no_text", "skip: [no_text]")
    (folder / "u1.txt").write_bytes(b"\xff\xfe\x00")
    refuse("folder", folder, "u1.txt", "UTF-8")
    (folder / "u1.txt").write_text("YES")
    soundfile.write(folder / "u1.flac", tone(), 16000)
    refuse("folder", folder, "1 duplicate", "u1.flac", "u1.wav")


@pytest.mark.parametrize("link", ["u1.txt", "u1.wav"])
def test_links_that_leave_the_folder_are_refused(tmp_path, link):
    folder = write_folder(tmp_path / "set")
    secret = tmp_path / f"secret{link[2:]}"
    (folder / link).rename(secret)
    (folder / link).symlink_to(secret)
    refuse("folder", folder, "outside")


def test_bad_tables(tmp_path):
    table = tmp_path / "t.tsv"
    refuse("tsv", table, "no such file")
    table.write_text("path\ttext\na.wav\tYES\n")
    refuse("tsv", table, "line 1: needs the headings path and transcript")
    table.write_text("path\ttranscript\n../secret.wav\tYES\n")
    refuse("tsv", table, "line 2", "outside")
    table.write_text("path\ttranscript\n/etc/passwd\tYES\n")
    refuse("tsv", table, "outside")
    table.write_text("path\ttranscript\na.wav\tYES\nb/../a.wav\tNO\n")
    refuse("tsv", table, "1 duplicate", "'a'")
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
            "1 no_text",
        ),
        ("[" * 100000, "nested too deeply"),
    ],
)
def test_bad_manifests(tmp_path, content, word):
    path = tmp_path / "m.json"
    path.write_text(content)
    refuse("manifest", path, word, str(tmp_path))


HOSTILE_IDS = [
    "../../escaped", "/tmp/escaped", "a/../../b", "", ".", "a//b", "x\n", "\ud800", "n" * 300
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_IDS)
def test_an_id_cannot_choose_where_files_are_written(tmp_path, name):
    write_folder(tmp_path / "set")
    sample = {"wav_path": "u0.wav", "transcript_path": "u0.txt", "id": name}
    path = tmp_path / "set" / "m.json"
    path.write_text(json.dumps({"root_path": ".", "samples": [sample]}))
    if name:  # an empty one counts as none given
        with pytest.raises(UserError, match="m.json"):
            manifest.read(path)
        (tmp_path / "out").mkdir()
        assert_one_line_error(run_corpus("manifest", path, tmp_path / "out"), "m.json")
        assert not list(tmp_path.rglob("*escaped*"))
        assert [p.name for p in (tmp_path / "out").iterdir()] == ["alphabet.json"]
    else:
        assert ids("manifest", path) == [("u0", "YES")]


@pytest.mark.parametrize("name", ["sub/..", "sub/../../set.wav", "out/u0.wav", "/u0.wav"])
def test_manifest_paths_that_leave_its_root_are_refused(tmp_path, name):
    folder = write_folder(tmp_path / "set")
    (folder / "sub").mkdir()
    (folder / "out").symlink_to(tmp_path)
    path = folder / "m.json"
    samples = [{"wav_path": wav, "transcript_path": "u0.txt"} for wav in ("u0.wav", name)]
    path.write_text(json.dumps({"root_path": ".", "samples": samples}))
    with pytest.raises(UserError, match=r"samples\[1\].*leads outside"):
        manifest.read(path)


@pytest.mark.parametrize(
    ("name", "words"), [("a\0b.wav", "NUL bytes"), ("loop.wav", "invalid path")]
)
def test_paths_that_no_system_can_open(tmp_path, name, words):
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    table = tmp_path / "t.tsv"
    table.write_text(f"path\ttranscript\n\n{name}\tYES\n")
    refuse("tsv", table, "line 3", words)


def test_names_that_are_not_utf_8(tmp_path):
    folder = write_folder(tmp_path / "set", ("YES",))
    for suffix in (b".wav", b".txt"):
        data = (folder / f"u0{suffix.decode()}").read_bytes()
        with open(os.fsencode(folder) + b"/gr\xf6" + suffix, "wb") as file:
            file.write(data)
    refuse("folder", folder, "rename")
    assert watched("folder", folder) == ["u0.txt", "u0.wav"]
    (tmp_path / "out").mkdir()
    assert_one_line_error(run_corpus("folder", folder, tmp_path / "out"), "rename")


def test_byte_order_marks_and_quotes_are_plain_text(tmp_path):
    folder = write_folder(tmp_path / "set", ("A", "B"))
    (folder / "u0.txt").write_text("YES", encoding="utf-8-sig")
    assert ids("folder", folder)[0] == ("u0", "YES")
    table = folder / "t.tsv"
    table.write_text('path\ttranscript\nu0.wav\t"YES"\nu1.wav\t"\n', encoding="utf-8-sig")
    assert ids("tsv", table) == [("u0", '"YES"'), ("u1", '"')]


def test_what_is_no_recording_is_left_out(tmp_path):
    folder = write_folder(tmp_path / "set", ("A",))
    (folder / "folder.wav").mkdir()
    (folder / "notes.md").write_text("x")
    assert ids("folder", folder) == [("u0", "A")]
    os.mkfifo(folder / "pipe.wav")  # whoever opened it to read would wait forever
    (folder / "._u0.wav").write_bytes(b"left by another system")
    refuse("folder", folder, "1 unreadable", "1 hidden", "pipe.wav", "skip: [unreadable, hidden]")
    assert watched("folder", folder) == ["._u0.wav", "u0.txt", "u0.wav"]


def test_only_files_that_exist_are_watched(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    table = tmp_path / "t.tsv"
    table.write_text("path\ttranscript\npipe.wav\tA\nabsent.wav\tB\n")
    assert watched("tsv", table) == ["t.tsv"]
    samples = [{"wav_path": "pipe.wav", "transcript_path": "absent.txt"}]
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"root_path": ".", "samples": samples}))
    (tmp_path / "absent.txt").write_text("A")
    assert watched("manifest", path) == ["absent.txt", "m.json"]
    assert watched("espeak", tmp_path / "absent.tsv") == []
    assert watched("an4", tmp_path) == ["absent.txt", "m.json", "t.tsv"]


def test_an_unknown_layout_is_refused(tmp_path):
    with pytest.raises(UserError, match="unknown layout 'voxforge'; known are: an4, folder"):
        layouts.create("voxforge", tmp_path)
