"""Files are whole or absent, and known by their contents."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from deepspeech2 import files
from deepspeech2.cli import UserError
from deepspeech2.corpus import archives, audio, corpus, labels, manifest, tables
from deepspeech2.corpus.layouts import an4
from deepspeech2.files import Fingerprints
from deepspeech2.model import stored
from deepspeech2.report import published
from deepspeech2.report.rows import read_record
from deepspeech2.scoring import transcripts


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with files.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_failed_folder_leaves_the_old_one(tmp_path):
    path = tmp_path / "a"
    for content in ("old", "half", "new"):
        try:
            with files.replacing_folder(path) as temporary:
                (temporary / content).write_text(content)
                if content == "half":
                    raise ZeroDivisionError
        except ZeroDivisionError:
            assert [p.name for p in path.iterdir()] == ["old"]
    assert [p.name for p in path.iterdir()] == ["new"] and list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_nothing_under_the_final_name(tmp_path):
    code = (
        "import sys, time; from deepspeech2 import files\n"
        "with files.replacing(sys.argv[1]) as t:\n"
        "    t.write_text('half'); print('ready', flush=True); time.sleep(60)\n"
    )
    path = tmp_path / "a"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert not path.exists()
    with files.replacing(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole"


def test_altered_and_missing_files_name_the_remedy(tmp_path):
    path = tmp_path / "a"
    path.write_text("x")
    digest = files.sha256(path)
    files.require_unaltered(path, digest, "i.json")
    path.write_text("y")
    with pytest.raises(UserError, match="altered.*snakemake --cores all --force i.json"):
        files.require_unaltered(path, digest, "i.json")
    path.unlink()
    with pytest.raises(UserError, match="missing.*i.json"):
        files.require_unaltered(path, digest, "i.json")


def test_what_a_killed_process_left_is_removed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    names = f".x.{process.pid}.tmp", f".x.{os.getpid()}9999999.tmp", f".x.{os.getppid()}.tmp"
    for name in (*names, ".x.a.tmp", f".xy.{process.pid}.tmp"):
        (tmp_path / name).write_text("half")
    (tmp_path / f".x.{process.pid}.old.tmp").mkdir()
    with files.replacing(tmp_path / "x") as temporary:
        temporary.write_text("whole")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"x", names[2], ".x.a.tmp", f".xy.{process.pid}.tmp"}
    assert (tmp_path / "x").read_text() == "whole"


@pytest.fixture
def settled(monkeypatch):
    """Files count as settled at once."""
    monkeypatch.setattr(Fingerprints, "SETTLED", -1)


def test_a_fingerprint_is_of_contents(tmp_path, settled):
    for name, text in (("a", "x"), ("b", "y")):
        (tmp_path / name).write_text(text)
    paths = [tmp_path / "a", tmp_path / "b"]

    def of(*which):
        return Fingerprints(tmp_path / "cache.json").of(which or paths)

    before = of()
    assert of(*paths[::-1]) == before and (tmp_path / "cache.json").exists()
    os.utime(paths[0], (1, 1))
    assert of() == before
    for change in (
        lambda: paths[0].write_text("z"),
        lambda: paths[0].unlink(),
        lambda: paths[0].rename(tmp_path / "c"),
    ):
        change()
        assert of() != before
        shutil.rmtree(tmp_path / "c", ignore_errors=True)
        paths[0].write_text("x")
        assert of() == before
    (tmp_path / "cache.json").write_text("[broken")
    assert of() == before
    moved = shutil.copytree(tmp_path, tmp_path / "moved")
    assert Fingerprints(moved / "none.json").of([moved / "b", moved / "a"]) == before


@pytest.mark.parametrize("way", ["mv", "cp -p", "link"])
def test_an_older_file_in_anothers_place_is_seen(tmp_path, settled, way):
    """Of the same size, and older than all that was made from the other."""
    old, place = tmp_path / "old", tmp_path / "place"
    old.write_text("1")
    os.utime(old, (1000, 1000))
    (tmp_path / "new").write_text("2")
    place.symlink_to("new") if way == "link" else place.write_text("2")
    of = Fingerprints(tmp_path / "cache.json").of
    before = of([place])
    assert Fingerprints(tmp_path / "cache.json").of([place]) == before
    if way == "link":
        place.unlink()
        place.symlink_to("old")
    else:
        subprocess.run([*way.split(), str(old), str(place)], check=True)
    assert place.stat().st_mtime == 1000
    assert Fingerprints(tmp_path / "cache.json").of([place]) != before


def test_unchanged_files_are_not_read_again(tmp_path, settled, monkeypatch):
    (tmp_path / "a").write_text("x")
    fingerprints = Fingerprints(tmp_path / "cache.json")
    before = fingerprints.of([tmp_path / "a"])
    monkeypatch.setattr(files, "sha256", lambda path: pytest.fail(f"{path} was read"))
    assert Fingerprints(tmp_path / "cache.json").of([tmp_path / "a"]) == before


def test_what_changed_just_now_is_read_again(tmp_path):
    """Its next change might leave the same times."""
    (tmp_path / "a").write_text("x")
    fingerprints = Fingerprints(tmp_path / "cache.json")
    fingerprints.of([tmp_path / "a"])
    assert not fingerprints.known


def test_what_a_power_cut_leaves_is_removed(tmp_path):
    torn = {"a/empty.bin": b"", "a/b/half.json": b'{"a": ', "zeros.tsv": b"a\tb\n" + bytes(9)}
    whole = {
        "a/x.json": b"{}\n", "a/y.bin": b"\0", "t.html": b"<p>\n", "a/.hidden": b"",
        "logs/a/b.log": b"", "d/corpus/wav/a.wav": b"", "d/features/spect/data1.bin": b"",
    }  # fmt: skip
    for name, content in {**torn, **whole}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link.json").symlink_to(tmp_path / "a/empty.bin")
    assert set(files.remove_torn(tmp_path)) == {str(tmp_path / name) for name in torn}
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == set(whole)
    assert files.remove_torn(tmp_path / "absent") == []


@pytest.mark.parametrize("data", [{"b": [1, 0.1, None], 3: "\u00e9", "a": (1,)}, {}])
def test_an_index_is_sealed(tmp_path, data):
    path = tmp_path / "i.json"
    files.write_json(path, data)
    plain = json.loads(json.dumps(data))
    assert files.read_sealed(path) == plain
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))
    assert files.read_sealed(path) == plain  # the order of keys and spaces say nothing
    for other in ({**plain, "new": 1}, [], "x", None, {**plain, files.SEAL: "0"}):
        path.write_text(json.dumps(other))
        with pytest.raises(UserError, match=r"altered since it was written; rebuild it with"):
            files.read_sealed(path)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "absent"])
def test_what_is_no_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "a"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    readers = [
        files.read_json, files.read_text, lambda p: files.require_unaltered(p, "0", "i.json"),
        transcripts.read, transcripts.read_training_texts, lambda p: list(tables.lines(p)),
        lambda p: list(tables.records(p)), lambda p: published.read({"d": p}), labels.read,
        audio.read, read_record, manifest.read,
        lambda p: stored.opened(p).__enter__(), lambda p: list(archives.members(p, archives.LARGE)),
        lambda p: an4.Layout(p).read(print), lambda p: corpus.Identity(p),
    ]  # fmt: skip
    for read in readers:
        with pytest.raises(UserError) as error:
            read(path)
        assert str(error.value).startswith(str(path))


def test_a_text_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_TEXT", 10)
    (tmp_path / "a").write_bytes(bytes(11))
    with pytest.raises(UserError, match="11 bytes, more than 10"):
        files.read_text(tmp_path / "a")
