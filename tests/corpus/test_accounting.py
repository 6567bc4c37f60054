"""Every file and row of a corpus is used, or counted under a reason that the user allows."""

import json

import pytest
import soundfile
from deepspeech2.cli import UserError
from deepspeech2.corpus import layouts
from helpers import tone, write_folder

TABLE = [("u0.wav", "YES"), ("u1.wav", "GO ON")]


def read(layout, path, **rules):
    found = layouts.create(layout, path, layouts.Rules(**rules))
    texts = {u.id: u.text for u in found.read(lambda name, sound: None)}
    return texts, {reason: len(places) for reason, places in found.passed_over.items()}


def spoil(folder, what):
    """Do to the recordings u0 to u2 what people's folders have."""
    if what == "text without audio":
        (folder / "u1.wav").unlink()
    elif what == "audio without text":
        (folder / "u1.txt").unlink()
    elif what == "empty text":
        (folder / "u1.txt").write_text(" \n")
    elif what == "cut audio":
        data = (folder / "u1.wav").read_bytes()
        (folder / "u1.wav").write_bytes(data[: len(data) // 2])
    elif what == "silence":
        soundfile.write(folder / "u1.wav", 0 * tone(), 16000)
    elif what == "no sound at all":
        (folder / "u1.wav").write_bytes(b"not a sound")
    elif what == "unread format":
        (folder / "u1.wav").rename(folder / "u1.ape")
    elif what == "two recordings":
        soundfile.write(folder / "u1.flac", tone(), 16000)
    elif what == "two texts":
        (folder / "u1.TXT").write_text("NO")
    elif what == "hidden audio":
        (folder / "._u1.wav").write_bytes(b"x")
    elif what == "hidden folder":
        write_folder(folder / ".trash", ("A",))
    elif what == "dead link":
        (folder / "u1.wav").unlink()
        (folder / "u1.wav").symlink_to("absent.wav")
    elif what == "link outside":
        (folder / "u1.wav").rename(folder.parent / "u1.wav")
        (folder / "u1.wav").symlink_to(folder.parent / "u1.wav")
    elif what == "linked folder outside":
        write_folder(folder.parent / "more", ("A",))
        (folder / "more").symlink_to(folder.parent / "more")


FOLDERS = {
    "text without audio": ("no_audio", 2),
    "audio without text": ("no_text", 2),
    "empty text": ("empty_text", 2),
    "cut audio": ("unreadable", 2),
    "silence": ("unreadable", 2),
    "no sound at all": ("unreadable", 2),
    "unread format": ("unreadable", 2),
    "two recordings": ("duplicate", 3),
    "two texts": ("duplicate", 3),
    "hidden audio": ("hidden", 3),
    "hidden folder": ("hidden", 3),
    "dead link": ("link", 2),
    "link outside": ("link", 2),
    "linked folder outside": ("link", 3),
}


@pytest.mark.parametrize("what", FOLDERS)
def test_what_a_folder_cannot_use_stops_or_is_counted(tmp_path, what):
    folder = write_folder(tmp_path / "set")
    spoil(folder, what)
    reason, used = FOLDERS[what]
    with pytest.raises(UserError, match=rf"skip: \[{reason}\]"):
        read("folder", folder)
    texts, counts = read("folder", folder, skip=[reason])
    assert len(texts) == used and counts == {reason: 1}


@pytest.mark.parametrize("what", ["link outside", "linked folder outside"])
def test_links_outside_are_followed_where_that_is_allowed(tmp_path, what):
    folder = write_folder(tmp_path / "set")
    spoil(folder, what)
    texts, counts = read("folder", folder, allow_outside=True)
    assert len(texts) == (4 if "folder" in what else 3) and counts == {}


def test_links_in_a_circle_end(tmp_path):
    folder = write_folder(tmp_path / "set")
    (folder / "again").symlink_to(folder)
    (folder / "inside").mkdir()
    (folder / "inside" / "up").symlink_to("..")
    texts, counts = read("folder", folder, skip=["link"])
    assert len(texts) == 3 and set(counts) == {"link"}


@pytest.mark.parametrize("names", [("A.WAV", "A.TXT"), ("a.Wav", "a.txt"), ("a.flac", "a.Txt")])
def test_suffixes_may_be_in_any_case(tmp_path, names):
    sound, text = (tmp_path / name for name in names)
    soundfile.write(sound, tone(), 16000, format=sound.suffix[1:].upper())
    text.write_text("GO ON")
    assert list(read("folder", tmp_path)[0].values()) == ["GO ON"]


def test_what_is_about_the_corpus_is_no_utterance(tmp_path):
    folder = write_folder(tmp_path / "set")
    for name in ("README", "README.txt", "LICENSE", "notes.pdf", ".DS_Store"):
        (folder / name).write_text("x")
    texts, counts = read("folder", folder)
    assert len(texts) == 3 and counts == {"other": 5}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("last", [True, False])
def test_tables_as_programs_write_them(tmp_path, end, separator, encoding, last):
    write_folder(tmp_path)
    lines = [separator.join(row) for row in [("path", "transcript"), *TABLE]]
    content = end.join(lines) + end * last
    (tmp_path / "t.tsv").write_bytes(content.encode(encoding))
    assert read("tsv", tmp_path / "t.tsv") == ({"u0": "YES", "u1": "GO ON"}, {})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("path\ttranscript\nu0.wav\tS M\tY T H\n", "line 2: 3 cells under 2 headings"),
        ("path\ttranscript\nu0.wav\tYES\nu1.wav\n", "line 3: 1 cells under 2 headings"),
        ("path,transcript\nu0.wav,YES, SIR\n", "line 2: 3 cells under 2 headings"),
        ("path|transcript\nu0.wav|YES\n", "needs the headings path and transcript"),
        ("file\tsentence\nu0.wav\tYES\n", "needs the headings path and transcript"),
        ("path\tpath\ttranscript\nu0.wav\tx\tYES\n", "appears twice"),
        ('path,transcript\nu0.wav,"YES\n', "quotes"),
        ("path\ttranscript\nabsent.wav\tYES\n", r"skip: \[no_audio\]"),
        ("path\ttranscript\nu0.wav\t \n", r"skip: \[empty_text\]"),
        ("path\ttranscript\nu0.wav\tA\nu0.wav\tB\n", r"skip: \[duplicate\]"),
        ("path\ttranscript\n../x.wav\tA\n", "allow_outside: true"),
    ],
)
def test_tables_that_are_refused(tmp_path, content, words):
    write_folder(tmp_path / "set")
    (tmp_path / "set" / "t.tsv").write_text(content)
    with pytest.raises(UserError, match=words):
        read("tsv", tmp_path / "set" / "t.tsv")


@pytest.mark.parametrize(
    ("cell", "text"), [('"YES, SIR"', "YES, SIR"), ('"A ""B"" C"', 'A "B" C'), ("YES", "YES")]
)
def test_quoted_cells(tmp_path, cell, text):
    write_folder(tmp_path)
    (tmp_path / "t.csv").write_text(f"path,transcript\nu0.wav,{cell}\n")
    assert read("tsv", tmp_path / "t.csv")[0] == {"u0": text}


def test_utf_16_is_named(tmp_path):
    (tmp_path / "t.tsv").write_text("path\ttranscript\nu0.wav\tYES\n", encoding="utf-16")
    with pytest.raises(UserError, match="t.tsv"):
        read("tsv", tmp_path / "t.tsv")


def test_manifests_may_have_other_keys_and_a_bom(tmp_path):
    write_folder(tmp_path)
    sample = {"wav_path": "u0.wav", "transcript_path": "u0.txt", "duration": 0.4, "tags": [1]}
    content = json.dumps({"root_path": ".", "samples": [sample], "version": 2})
    (tmp_path / "m.json").write_text(content, encoding="utf-8-sig")
    assert read("manifest", tmp_path / "m.json") == ({"u0": "YES"}, {})


def test_an_empty_reference_is_kept_where_it_is_scored(tmp_path):
    folder = write_folder(tmp_path / "set")
    spoil(folder, "empty text")
    texts, counts = read("folder", folder, empty_references=True)
    assert texts["u1"] == "" and counts == {}


def test_auto_takes_what_claims_the_source(tmp_path):
    folder = write_folder(tmp_path / "set")
    table = tmp_path / "set.tsv"
    table.write_text("path\ttranscript\nset/u0.wav\tYES\n")
    manifest = tmp_path / "m.json"
    manifest.write_text(json.dumps({"root_path": ".", "samples": []}))
    found = {path: layouts.find(path) for path in (folder, table, manifest)}
    assert found == {folder: "folder", table: "tsv", manifest: "manifest"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no layout claims it"):
        layouts.find(tmp_path / "empty")


@pytest.mark.parametrize("name", ["folder_text_without_audio", "tsv_stray_tab"])
def test_the_cases_stop(shared, name):
    data = shared / "cases" / name / "data"
    (table,) = data.glob("*.tsv") if name.startswith("tsv") else [data]
    with pytest.raises(UserError, match="line 2" if table != data else "no_audio"):
        read("tsv" if table != data else "folder", table)


def test_the_case_of_capital_suffixes(shared):
    assert len(read("folder", shared / "cases/folder_upper_case_txt/data")[0]) == 1


def test_the_case_of_another_format(shared):
    pytest.importorskip("av", reason="needs the optional decoders of envs/formats.txt")
    assert len(read("folder", shared / "cases/folder_other_extension/data")[0]) == 2


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_utf_16_without_a_mark_is_no_text_of_single_letters(tmp_path, encoding):
    folder = write_folder(tmp_path / "set")
    (tmp_path / "set/t.tsv").write_text("path\ttranscript\nu0.wav\tYES\n", encoding=encoding)
    with pytest.raises(UserError, match="t.tsv: line 1: NUL bytes"):
        read("tsv", tmp_path / "set/t.tsv")
    (folder / "u1.txt").write_text("GO ON", encoding=encoding)
    with pytest.raises(UserError, match="u1.txt: NUL bytes"):
        read("folder", folder)
