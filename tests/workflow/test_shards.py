"""A dataset in shards: the same bytes as in one, nothing lost or doubled, and what is made anew."""

import json
import re
import shutil

import pytest
import yaml
from conftest import copy_project
from deepspeech2 import files
from deepspeech2.cli import UserError
from deepspeech2.model import join, posteriors
from deepspeech2.scoring import gather
from helpers import (
    assert_one_line_error,
    planned,
    posteriors_of,
    run_stage,
    snakemake,
    write_folder,
    write_safetensors,
)

ROW = "results/own/tiny/cpu/bs2"
NAMES = (
    "transcripts.jsonl",
    "transcripts.json",
    "score.json",
    "alignments.jsonl",
    "agreement.json",
)
WORDS = "YES GO STOP LEFT RIGHT ON OFF UP DOWN NO FIVE".split()


def config(shards, **timing):
    return {
        "run": {"datasets": ["own"], "models": ["tiny"], "engines": ["cpu"], "batch_sizes": [2]},
        "datasets": {"own": {"layout": "folder", "path": "set", "shards": shards}},
        "models": {"tiny": {"checkpoint": "tiny.safetensors"}},
        # What each utterance is computed with depends on nothing but itself.
        "engines": {"cpu": {"backend": "native", "padding": "batch"}},
        "timing": {"warmup_batches": 0, "min_batches": 1, "min_seconds": 0, **timing},
    }


def configure(folder, shards, **timing):
    (folder / "own.yaml").write_text(yaml.safe_dump(config(shards, **timing)))
    return "--configfile", "own.yaml"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run in 1, 3 and 7 shards."""
    made = {}
    for shards in (1, 3, 7):
        folder = copy_project(tmp_path_factory.mktemp(f"shards{shards}") / "checkout")
        write_folder(folder / "set", WORDS)
        write_safetensors(folder / "tiny.safetensors")
        snakemake(folder, "--cores", 1, *configure(folder, shards))
        made[shards] = folder
    return made


@pytest.mark.parametrize("shards", [3, 7])
def test_the_same_bytes_as_in_one(runs, shards):
    for name in NAMES:
        found = [(runs[n] / ROW / "greedy" / name).read_bytes() for n in (1, shards)]
        assert found[0] == found[1], name
    parts = sorted((runs[shards] / "results/own/tiny/parts").glob(f"*of{shards}"))
    assert len(parts) == shards
    for engine in ("eager", "cpu/bs2"):
        whole = (runs[1] / "results/own/tiny" / engine / "posteriors.bin").read_bytes()
        read = [(part / engine / "posteriors.bin").read_bytes() for part in parts]
        assert b"".join(read) == whole
        assert not (runs[shards] / "results/own/tiny" / engine / "posteriors.bin").exists()
    # Their features are gone, and nothing is run again for it.
    assert not list((runs[shards] / "results").rglob("spect"))
    assert planned(runs[shards], *configure(runs[shards], shards)) == {}


def test_record_table_and_page_are_of_the_whole(runs):
    records = {n: json.loads((f / ROW / "greedy/record.json").read_text()) for n, f in runs.items()}
    for record in records.values():
        assert record["accuracy"] == records[1]["accuracy"]
        assert record["offline"]["sample"] == len(WORDS)
        assert record["corpus"] == records[1]["corpus"]
        assert record["accuracy_environment"] == records[1]["accuracy_environment"]
    for folder in runs.values():
        page = (folder / "results/report.html").read_text()
        assert page.count("data:audio/mpeg") == len(WORDS) == page.count("data:image/webp")


def test_shards_are_one_job_each_where_jobs_are_sent_away(runs):
    """Snakemake's own words for what would be sent together."""
    done = snakemake(runs[3], "--cores", 1, "-n", "-F", *configure(runs[3], 3))
    found = {}
    for block in re.split(r"Group job (?=own_tiny_)", done.stdout)[1:]:
        block = re.split(r"(?m)^\[", block)[0]
        name = re.match(r"own_tiny_(\w+) ", block)[1]
        assert name not in found
        found[name] = sorted(re.findall(r"rule (\w+):", block))
    ours = ["decode", "decode_eager", "eager", "infer", "preprocess_part"]
    assert [found.pop(name) for name in ("1of3", "2of3", "3of3")] == [ours] * 3
    # What is timed is compared with the sample's posteriors, at two batch sizes.
    assert found == {"sample": ["eager", "infer", "infer", "preprocess_part"]}


def test_other_shards_and_a_smaller_sample_give_the_same(runs, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(runs[3], folder)
    options = configure(folder, 2, sample=4)
    jobs = planned(folder, *options)
    assert len(jobs["preprocess_part"]) == 3 and "convert" not in jobs and "corpus" not in jobs
    snakemake(folder, "--cores", 1, *options)
    for name in NAMES:
        found = [(place / ROW / "greedy" / name).read_bytes() for place in (folder, runs[1])]
        assert found[0] == found[1], name
    timing = json.loads((folder / ROW / "timing.json").read_text())
    assert timing["sample"] == 4 and "a sample of 4 of 1000 utterances" in timing["reasons"]
    assert timing["proof"]["largest_difference"] == 0 and timing["proof"]["utterances"] == 1
    (folder / "results/own/tiny/parts/2of2/cpu/bs2/posteriors.bin").unlink()
    jobs = planned(folder, *options)
    assert len(jobs["preprocess_part"]) == len(jobs["infer"]) == 1


def test_features_of_shards_are_not_kept(runs):
    done = snakemake(runs[3], "-n", *configure(runs[3], 3), "--", "features", check=False)
    said = done.stdout + done.stderr
    assert done.returncode and "datasets.own: shards keep no features; set shards: 1" in said


def test_more_shards_than_utterances_is_one_line(runs, tmp_path):
    folder = tmp_path / "many"
    shutil.copytree(runs[3], folder)
    done = snakemake(folder, "--cores", 1, *configure(folder, 12), check=False)
    assert done.returncode and "12 shards of 11 utterances would leave some empty" in done.stderr


IDS = ("a", "b", "c", "d")


@pytest.fixture
def parts(tmp_path):
    """Two shards of four utterances, as stages leave them, and the index of all."""
    files.write_json(tmp_path / "features.json", {"utterances": [{"id": name} for name in IDS]})
    for number, names in enumerate((IDS[:2], IDS[2:])):
        run = {"threads": 1, "versions": {"torch": "2"}, "features_sha256": str(number)}
        paths = tmp_path / f"{number}.bin", tmp_path / f"{number}.p.json"
        posteriors.write(*paths, ((name, posteriors_of("YES")) for name in names), run)
        lines = [json.dumps({"id": n, "reference": "YES", "hypothesis": "YES"}) for n in names]
        (tmp_path / f"{number}.jsonl").write_text("\n".join(lines) + "\n")
        about = {"decoder": {"kind": "greedy"}, "language_model": None, "tuning": None}
        about |= {"sha256": files.sha256(tmp_path / f"{number}.jsonl"), "utterances": 2}
        files.write_json(tmp_path / f"{number}.t.json", about)
    return tmp_path


def joined(folder, order="01"):
    join.main(
        [folder / f"{n}.p.json" for n in order], folder / "features.json", folder / "all.json"
    )
    return list(posteriors.read([folder / f"{n}.bin" for n in order], folder / "all.json"))


def gathered(folder, order="01"):
    gather.main(
        [folder / f"{n}.jsonl" for n in order], [folder / f"{n}.t.json" for n in order],
        folder / "features.json", folder / "all.jsonl", folder / "all.t.json",
    )  # fmt: skip
    return (folder / "all.jsonl").read_text()


def test_shards_together_are_the_set(parts):
    assert [name for name, _ in joined(parts)] == list(IDS)
    index = files.read_sealed(parts / "all.json")
    assert index["run"]["features_sha256"] == files.sha256(parts / "features.json")
    assert gathered(parts).count("\n") == 4
    assert files.read_sealed(parts / "all.t.json")["utterances"] == 4


@pytest.mark.parametrize("order", ["0", "1", "10", "00", "011", "0110"])
@pytest.mark.parametrize("together", [joined, gathered])
def test_lost_doubled_and_disordered_utterances_are_refused(parts, order, together):
    with pytest.raises(UserError, match=r"shards together have \d utterances, 4 are expected"):
        together(parts, order)
    assert not (parts / "all.jsonl").exists() and not (parts / "all.json").exists()


@pytest.mark.parametrize(
    "key, value", [("threads", 2), ("versions", {"torch": "3"}), ("outside", {"X": "1"})]
)
def test_shards_that_were_computed_otherwise_are_refused(parts, key, value):
    index = files.read_sealed(parts / "1.p.json")
    files.write_json(parts / "1.p.json", {**index, "run": {**index["run"], key: value}})
    with pytest.raises(UserError, match=rf"1.p.json: its {key} .* is not that of "):
        joined(parts)


@pytest.mark.parametrize("key", ["decoder", "language_model", "tuning"])
def test_shards_that_were_decoded_otherwise_are_refused(parts, key):
    index = files.read_sealed(parts / "1.t.json")
    files.write_json(parts / "1.t.json", {**index, key: {"kind": "beam"}})
    with pytest.raises(UserError, match=rf"1.t.json: its {key} is not that of "):
        gathered(parts)


def test_altered_shards_are_refused(parts):
    for name in ("1.bin", "1.jsonl"):
        (parts / name).write_bytes((parts / name).read_bytes()[:-1] + b"x")
    joined_index = parts / "all.json"
    with pytest.raises(UserError, match=r"1.bin: altered"):
        joined(parts)
    assert joined_index.exists()
    with pytest.raises(UserError, match=r"1.jsonl: altered"):
        gathered(parts)


def test_posteriors_of_fewer_files_than_the_index_has(parts):
    joined(parts)
    with pytest.raises(UserError, match="it is of 2 files, not 1"):
        list(posteriors.read(parts / "0.bin", parts / "all.json"))


def test_a_corpus_that_changed_under_its_plan_is_refused(runs, tmp_path):
    base = runs[3] / "results/own/tiny"
    plan = files.read_sealed(base / "features.json")
    plan["utterances"][1]["reference"] = "ANOTHER"
    files.write_json(tmp_path / "plan.json", plan)
    data = runs[3] / "results/datasets/own"
    done = run_stage(
        "features.preprocess", "--manifest", data / "own_all_manifest.json",
        "--model", runs[3] / "results/models/tiny/model.json", "--labels", data / "labels.json",
        "--features", tmp_path / "f", "--index", tmp_path / "f.json",
        "--plan", tmp_path / "plan.json", "--part", "1of3",
    )  # fmt: skip
    assert_one_line_error(done, "plan.json: its utterance", "has changed")


def test_what_else_is_made_of_a_row_is_the_same(runs, tmp_path):
    """Times of words, sclite's files, the guide's texts, and a decoder that is tuned on shards."""
    found = {}
    for shards in (1, 3):
        folder = tmp_path / str(shards)
        shutil.copytree(runs[shards], folder)
        own = config(shards)
        held = {"split": "val", "shards": min(shards, 2)}
        own["datasets"]["held"] = {**own["datasets"]["own"], **held}
        own["tune"] = {"decoder": "greedy", "dataset": "held", "model": "tiny", "grid": {}}
        write_folder(folder / "set", WORDS * 2)  # val is a tenth
        (folder / "own.yaml").write_text(yaml.safe_dump(own))
        snakemake(folder, "--cores", 1, "--configfile", "own.yaml", "--", "trn", "ctm", "tune")
        row = folder / ROW / "greedy"
        texts = [(row / n).read_bytes() for n in ("hyp.trn", "ref.trn", "hyp.ctm", "ref.ctm")]
        table = (folder / "results/tuning/greedy.tsv").read_bytes()
        found[shards] = [*texts, table]
    assert found[1] == found[3]
