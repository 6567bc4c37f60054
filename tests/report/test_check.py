"""A submission that somebody else made: what holds is told, and what was altered is found."""

import csv
import json
import re
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import copy_project
from deepspeech2.cli import UserError
from deepspeech2.engines import energy, timing
from deepspeech2.files import SEAL, seal, sha256
from deepspeech2.report import evidence
from helpers import run_module, snakemake, write_folder, write_safetensors

CONFIG = {
    "run": {"datasets": ["own", "parts"], "models": ["tiny"], "engines": ["cpu"],
            "batch_sizes": [2]},
    "datasets": {
        "own": {"layout": "folder", "path": "set"},
        "parts": {"layout": "folder", "path": "set", "shards": 2},
    },
    "models": {"tiny": {"checkpoint": "tiny.safetensors", "training_texts": "known.txt"}},
    "engines": {"cpu": {"backend": "native"}},
    "timing": {"warmup_batches": 1, "min_batches": 3, "min_seconds": 0, "sample": 4},
    "server": {"latency_ms": 200, "max_batch": 2, "seconds": 0.1, "percentile": 80.0},
}  # fmt: skip
ROW = "own/tiny/cpu/bs2/greedy"
# What only the machine, the audio, the model or its posteriors could tell, or whoever configured.
UNSEEN = (
    r"datasets/own/corpus\.json: utterances\.#\.\w+",
    r"own/tiny/cpu/bs2/posteriors\.json: (files\.#\.sha256|utterances\.#\.frames)",
    rf"{ROW}/record\.json: configuration\.(dataset|model|accuracy)\.\w+(\.#)?",
    rf"{ROW}/record\.json: configuration\.timing\.sample",
)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = copy_project(tmp_path_factory.mktemp("packed") / "checkout")
    write_folder(folder / "set", "YES GO STOP LEFT RIGHT".split())
    write_safetensors(folder / "tiny.safetensors")
    (folder / "known.txt").write_text("GO\nLEFT\n")
    (folder / "own.yaml").write_text(yaml.safe_dump(CONFIG))
    snakemake(folder, "--cores", 2, "--configfile", "own.yaml", "--", "submission")
    return folder / "results/submission.zip"


@pytest.fixture
def unpacked(packed, tmp_path):
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path / "in")
    return tmp_path / "in"


def complaints(folder):
    submission = evidence.Submission(folder)
    submission.run()
    return submission.complaints


def write(path, content):
    """As somebody would who knows of seals."""
    content.pop(SEAL, None)
    path.write_text(json.dumps({**content, SEAL: seal(content)}, ensure_ascii=False) + "\n")


def leaves(value, path=()):
    """A path to one value of each kind of key, with # for a place in a list."""
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value[:1])
        for key, one in items:
            yield from leaves(one, (*path, key))
    elif path != (SEAL,):
        yield path


def altered(value):
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1:] != "0" else "1")
    return value + 1 if isinstance(value, int) else value * 1.0001 + 1e-6


def put(content, path, change):
    for key in path[:-1]:
        content = content[key]
    content[path[-1]] = change(content[path[-1]])


def run(folder):
    return run_module(["deepspeech2.check", folder], folder.parent)


def test_an_honest_one_holds(packed):
    done = run(packed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"submission.zip: holds: 2 rows, \d+ files, \d+ times computed", done.stdout)


def test_the_same_files_are_the_same_bytes(packed):
    before = packed.read_bytes()
    packed.unlink()
    folder = packed.parents[1]
    snakemake(folder, "--cores", 2, "--configfile", "own.yaml", "--", "submission")
    assert packed.read_bytes() == before


def test_any_figure_that_is_altered_is_found(unpacked):
    """Though its file is sealed anew and the list has its hash: by what it is computed from."""
    index = json.loads((unpacked / evidence.INDEX).read_text())
    count, unseen = 0, []
    for name in index["files"]:
        if not name.endswith(".json") or name.startswith(("parts/", "datasets/parts/")):
            continue
        path = unpacked / name
        text = path.read_text()
        for place in leaves(json.loads(text)):
            content = json.loads(text)
            put(content, place, altered)
            write(path, content)
            changed = {**index, "files": {**index["files"], name: sha256(path)}, "rows": [ROW]}
            write(unpacked / evidence.INDEX, changed)
            submission = evidence.Submission(unpacked)
            submission.files()
            submission._guarded(ROW, lambda to=submission: evidence.Row(to, ROW).run())
            count += 1
            if not submission.complaints:
                where = ".".join("#" if isinstance(key, int) else key for key in place)
                unseen.append(f"{name}: {where}")
        path.write_text(text)
    assert count >= 500
    left = [one for one in unseen if not any(re.fullmatch(known, one) for known in UNSEEN)]
    assert not left


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        (f"{ROW}/transcripts.jsonl", '"hypothesis": "', '"hypothesis": "A ', "transcripts.jsonl"),
        (f"{ROW}/alignments.jsonl", '"errors": ', '"errors": 1', "not the alignments"),
        (f"{ROW}/ref.trn", "YES", "NO", "not the texts of the transcripts"),
        (f"{ROW}/hyp.trn", " (", "A (", "not the texts of the transcripts"),
        ("own/tiny/cpu/bs2/times.tsv", "\t2\t", "\t3\t", "not the batch of these utterances"),
        ("own/tiny/cpu/bs2/times.tsv", "\n0.", "\n1.", "times_sha256"),
        ("own/tiny/cpu/single_stream_times.tsv", "0.0", "0.1", "times_sha256"),
        ("own/tiny/cpu/server/greedy/times.tsv", "\t2\n", "\t1\n", "not what the rules make of"),
        ("own/tiny/cpu/server/greedy/times.tsv", "\n1\t", "\n0\t", "not what the rules make of"),
        ("table.tsv", "QUICK", "VALID", "table.tsv: line 2: not what the records say"),
        ("table.md", "QUICK", "VALID", "not what the records say"),
        ("texts/*", "GO", "YES", "training_texts: other texts"),
    ],
)
def test_what_is_no_json_neither(unpacked, name, old, new, words):
    [path] = unpacked.glob(name)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    index = json.loads((unpacked / evidence.INDEX).read_text())
    index["files"][path.relative_to(unpacked).as_posix()] = sha256(path)
    write(unpacked / evidence.INDEX, index)
    assert any(words in line for line in complaints(unpacked))


def test_energy_is_of_its_joules_and_idle_watts(unpacked):
    """No machine of ours tells it, so it is put into a file that was measured without."""
    path = unpacked / "own/tiny/cpu/bs2/timing.json"
    content = json.loads(path.read_text())
    audio = sum(one.audio_seconds for one in timing.read_times(path.with_name("times.tsv")))
    idle, used = energy.Reading({"rapl": 20.0}, 2.0), energy.Reading({"rapl": 90.0}, 3.0)
    told = energy.figures(idle, used, content["utterances"], audio)
    assert told["joules_above_idle"] == 60.0
    for key, change in ((None, 1), ("joules", 1.1), ("joules_per_utterance", 1.1),
                        ("joules_per_audio_hour", 0.9), ("idle_watts", 2)):  # fmt: skip
        altered_one = {**told, **({key: told[key] * change} if key else {})}
        write(path, {**content, "energy": {**altered_one, "not_readable": []}})
        found = [line for line in complaints(unpacked) if "not of its joules" in line]
        assert bool(found) == bool(key), key


@pytest.mark.parametrize(
    ("key", "value"),
    [("percentile", 99.999999999), ("percentile", 100.0), ("percentile", -1e300),
     ("seconds", 1e300), ("latency_ms", -1.0), ("max_batch", 0)],
)  # fmt: skip
def test_no_rule_for_a_server_takes_the_memory(unpacked, key, value):
    """One that asks for thousands of millions of arrivals, or for none."""
    path = unpacked / "own/tiny/cpu/server/greedy/server.json"
    content = json.loads(path.read_text())
    content["rule"][key] = value
    write(path, content)
    assert any("server" in line for line in complaints(unpacked))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"outputs": 0}, "server.json: proof"), ({"largest_difference": 0.5}, "server.json: proof"),
        ({"utterances": 2}, "server.json: proof"), ({"sample": 1000}, "server.json: settings"),
    ],
)  # fmt: skip
def test_a_server_is_no_better_than_its_sample_and_outputs(unpacked, change, words):
    """Not even where its record says the same."""
    path = unpacked / "own/tiny/cpu/server/greedy/server.json"
    content = json.loads(path.read_text())
    content["settings" if "sample" in change else "proof"].update(change)
    write(path, content)
    assert any(words in line for line in complaints(unpacked))


def test_files_that_are_not_listed_or_missing_or_altered(unpacked):
    (unpacked / "more.txt").write_text("x")
    (unpacked / ROW / "ref.ctm").write_text("x")
    (unpacked / "table.md").unlink()
    found = complaints(unpacked)
    assert f"more.txt: not listed in {evidence.INDEX}" in found and "table.md: missing" in found
    assert f"{ROW}/ref.ctm: not what {evidence.INDEX} lists" in found


@pytest.mark.parametrize(
    "value", [None, [], {}, "x", -1, 10**400, [[]], {"a": {}}, True], ids=lambda v: repr(v)[:9]
)
@pytest.mark.parametrize("key", ["rows", "files", "published", "format"])
def test_an_index_of_another_shape(unpacked, key, value):
    index = json.loads((unpacked / evidence.INDEX).read_text())
    write(unpacked / evidence.INDEX, {**index, key: value})
    try:
        assert value == index[key] or complaints(unpacked)
    except UserError as error:
        assert key == "format" or "submission.json" in str(error)


@pytest.mark.parametrize(
    "row", ["../../../../etc", "a/../../b/c", "/etc/a/b/c/d", "own/tiny/cpu/bs2/\0", ROW + "/x", 7]
)
def test_names_that_lead_elsewhere(unpacked, row):
    index = json.loads((unpacked / evidence.INDEX).read_text())
    write(unpacked / evidence.INDEX, {**index, "rows": [row]})
    try:
        assert complaints(unpacked)
    except UserError as error:
        assert "of another shape" in str(error)


# What a value of a file may be instead.
SHAPES = [None, [], {}, "x", -1, 1e308, 10**400, [[[]]], {"a": {}}]


@pytest.mark.parametrize(
    "name",
    ["bs2/timing.json", "bs2/posteriors.json", "bs2/greedy/score.json", "bs2/greedy/record.json",
     "server/greedy/server.json"],
)  # fmt: skip
@pytest.mark.parametrize("value", SHAPES, ids=lambda v: repr(v)[:9])
def test_json_of_another_shape(unpacked, name, value):
    """A value of each file's is something else: that is a complaint, and no traceback."""
    path = unpacked / "own/tiny/cpu" / name
    content = json.loads(path.read_text())
    content.pop(SEAL)
    every = 1 + len(content) // 4  # all have had their turn after so many shapes
    for key in list(content)[SHAPES.index(value) % every :: every]:
        write(path, {**content, key: value})
        index = json.loads((unpacked / evidence.INDEX).read_text())
        index["files"][path.relative_to(unpacked).as_posix()] = sha256(path)
        write(unpacked / evidence.INDEX, {**index, "rows": [ROW]})
        assert content[key] == value or complaints(unpacked)


def test_submissions_side_by_side(packed, unpacked, tmp_path):
    """The board of an honest one and of one in which a figure was altered."""
    path = unpacked / ROW / "score.json"
    content = json.loads(path.read_text())
    content["wer"]["percent"] = 0.0
    write(path, content)
    with zipfile.ZipFile(tmp_path / "theirs.zip", "w") as archive:
        for one in filter(Path.is_file, unpacked.rglob("*")):
            archive.write(one, one.relative_to(unpacked).as_posix())
    folder = packed.parents[1]
    boards = f"boards=['{packed}', '{tmp_path / 'theirs.zip'}']"
    refused = snakemake(folder, "--configfile", "own.yaml", "-n", "--", "board", check=False)
    assert "config: boards: name submissions" in refused.stdout + refused.stderr
    snakemake(folder, "--cores", 2, "--configfile", "own.yaml", "--config", boards, "--", "board")
    with open(folder / "results/board.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["board"] for row in rows].count("1 submission") == 2 == len(rows) / 2
    for row in rows:
        bad = row["board"] == "2 theirs"
        assert bad == ("its submission does not hold" in row["marks"]) and "QUICK" in row["marks"]
    text = (folder / "results/board.md").read_text()
    assert "2 theirs does not hold: " in text and "score.json" in text
    assert "2 theirs does not hold" in (folder / "results/board.html").read_text()


def test_archives_that_are_none(tmp_path, packed):
    (tmp_path / "a.zip").write_bytes(b"no zip")
    (tmp_path / "cut.zip").write_bytes(packed.read_bytes()[:5000])
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        archive.writestr("../evil", "x")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("x", "x")
    for name in ("a.zip", "cut.zip", "out.zip", "empty.zip", "absent.zip"):
        done = run(tmp_path / name)
        assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert not Path(tmp_path.parent / "evil").exists()
