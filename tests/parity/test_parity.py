"""Against deepspeech.pytorch V3.0 itself: its checkpoints, AN4 test, its own outputs."""

import base64
import csv
import json
import tarfile

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, copy_project
from deepspeech2.cli import UserError
from deepspeech2.corpus import corpus, layouts
from deepspeech2.features.batches import FeatureSet
from deepspeech2.model import checkpoint, network
from deepspeech2.model import posteriors as posteriors_file
from deepspeech2.model.architecture import Architecture
from deepspeech2.model.trace import trace
from deepspeech2.scoring import transcripts as transcripts_file
from helpers import run_stage, snakemake

TINY = ("tiny_gru_bidirectional", "tiny_rnn_bidirectional", "tiny_lstm_unidirectional")
ROWS = ("cpu-fp32-trimmed/bs1", "cpu-fp32/bs20", "cpu-fp32-packed/bs20")


@pytest.fixture(scope="module")
def run(shared, an4_archive, tmp_path_factory):
    """The workflow, run on AN4 test with the V3 checkpoint; the folder of the checkout.

    All accuracy figures, and a table with the first row, which computes no padding: timing all
    would take minutes.
    """
    ours = [f"results/an4/an4-v3/{row}" for row in ROWS]
    folder = copy_project(tmp_path_factory.mktemp("an4") / "checkout")
    checkpoint_path = shared / "checkpoints" / "an4_small_v3.ckpt"
    changes = {
        "run": {"engines": ["cpu-fp32-trimmed"], "batch_sizes": [1]},
        "timing": {"multi": 1, "warmup_batches": 1},
    }
    (folder / "test.yaml").write_text(yaml.safe_dump(changes))
    snakemake(
        folder, "--cores", 2, "--configfile", "config/an4.yaml", "test.yaml",
        "--config", f"archive={an4_archive}", f"checkpoint={checkpoint_path}", "--",
        "all", *(f"{row}/greedy/{name}.json" for row in ours for name in ("score", "agreement")),
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def features(run):
    base = run / "results/an4/an4-v3"
    return FeatureSet(base / "features", base / "features.json")


def folders(run):
    """The result folders of eager and of every row."""
    return [run / "results/an4/an4-v3" / name for name in ("eager", *ROWS)]


def test_preprocess_equals_integer_by_integer(shared, run, features):
    expected = json.loads((shared / "reference/preprocess.json").read_text())
    assert [u["id"] for u in features.utterances] == expected["order"]
    for name, folder in (("sizes", "sizes"), ("targets", "."), ("target_sizes", ".")):
        text = (features.folder / folder / f"{name}.txt").read_text()
        assert text.endswith(" ") and [int(n) for n in text.split()] == expected[name]


def test_features_within_1e_4(shared, features):
    positions = {u["id"]: i for i, u in enumerate(features.utterances)}
    with np.load(shared / "reference/features_8.npz") as reference:
        assert len(reference.files) == 8
        for name in reference.files:
            expected = reference[name]
            found = features.load(positions[name])
            np.testing.assert_allclose(found[:, : expected.shape[1]], expected, atol=1e-4)
            assert not found[:, expected.shape[1] :].any()


def test_posteriors_within_1e_5(shared, run):
    with np.load(shared / "reference/posteriors_8.npz") as reference:
        for folder in folders(run):
            found = dict(
                posteriors_file.read(folder / "posteriors.bin", folder / "posteriors.json")
            )
            assert len(found) == 130
            for name in reference.files:
                np.testing.assert_allclose(found[name], reference[name], atol=1e-5)


def test_all_transcripts_are_equal(shared, run):
    with open(shared / "reference/transcripts.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == 130
    expected = {r["id"]: {k: r[k] for k in ("reference", "hypothesis")} for r in rows}
    frames = {r["id"]: int(r["output_frames"]) for r in rows}
    for folder in folders(run):
        found = transcripts_file.read(folder / "greedy/transcripts.jsonl")
        assert {n: {k: t[k] for k in expected[n]} for n, t in found.items()} == expected
        index = json.loads((folder / "posteriors.json").read_text())
        assert {u["id"]: u["frames"] for u in index["utterances"]} == frames


def test_wer_and_cer(shared, run):
    expected = json.loads((shared / "reference/summary.json").read_text())
    for folder in folders(run)[1:]:
        found = json.loads((folder / "greedy/score.json").read_text())
        for name in ("wer", "cer"):
            assert found[name]["percent"] == pytest.approx(expected[name], abs=1e-6)
        found = json.loads((folder / "greedy/agreement.json").read_text())
        assert found["identical_transcripts"] == found["utterances"] == 130
        assert found["largest_posterior_difference"] < 1e-5
    with open(run / "results/table.tsv", newline="") as file:
        (row,) = csv.DictReader(file, delimiter="\t")
    assert row["wer"] == f"{expected['wer']:.3f}" and row["cer"] == f"{expected['cer']:.3f}"
    assert row["identical_transcripts"] == row["utterances"] == "130"
    assert (row["scored"], row["of"]) == ("130", "130")
    assert float(row["stream_p50_ms"]) > 0 and row["stream_p99_ms"]  # 130 batches
    # Of the test set's texts, a part was in the training set too.
    assert 0 < int(row["unseen_utterances"]) < 130
    assert float(row["wer_unseen"]) > float(row["wer"])
    assert float(row["utterances_per_s"]) > 0 and row["verdict"] in ("VALID", "INVALID")
    assert row["published_utterances_per_s"] == "1.2357"


def test_manifests_of_all_splits(run):
    speakers = {}
    for split, count in (("train", 850), ("val", 98), ("test", 130)):
        path = run / f"results/datasets/an4/an4_{split}_manifest.json"
        samples = json.loads(path.read_text())["samples"]
        assert len(samples) == count
        speakers[split] = {s["speaker"] for s in samples}
    assert not speakers["train"] & speakers["val"]
    assert not speakers["test"] & (speakers["train"] | speakers["val"])


def test_timing_never_overlaps_another_job(run):
    """By the start and end times that Snakemake recorded of every job of the --cores 2 run."""
    jobs = {}
    for path in (run / ".snakemake/metadata").rglob("*"):
        if path.is_file():
            record = json.loads(path.read_text())
            output = base64.b64decode(path.name).decode()
            jobs[output] = (record["rule"], record["starttime"], record["endtime"])
    names = ("timing", "single_stream")
    timings = {o: j for o, j in jobs.items() if j[0] in names and o.endswith(".json")}
    assert len(timings) == 2
    others = [job for output, job in jobs.items() if output not in timings]
    assert any(a[1] < b[2] and b[1] < a[2] for a in others for b in others if a[0] != b[0])
    for output, (own, start, end) in timings.items():
        for other, (rule, other_start, other_end) in jobs.items():
            if (rule, other_end) != (own, end):  # a job's outputs end together
                assert end <= other_start or other_end <= start, (output, rule, other)
        inner = json.loads((run / output).read_text())
        assert start <= _seconds(inner["started"]) < _seconds(inner["ended"]) <= end


def _seconds(text):
    import datetime

    return datetime.datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize("name", TINY)
def test_other_kinds_of_networks(shared, features, tmp_path, name):
    """GRU, RNN and unidirectional with lookahead: four utterances in one padded batch."""
    weights, model = tmp_path / "m.safetensors", tmp_path / "m.json"
    source = shared / "checkpoints" / f"{name}.ckpt"
    result = run_stage(
        "model.convert", "--checkpoint", source, "--weights", weights, "--model", model
    )
    assert result.returncode == 0, result.stderr
    positions = {u["id"]: i for i, u in enumerate(features.utterances)}
    with np.load(shared / "reference" / f"posteriors_{name}.npz") as reference:
        order = sorted(reference.files, key=positions.get)
        assert len(order) == 4
        lengths = [features.utterances[positions[n]]["frames"] for n in order]
        x = np.stack([features.load(positions[n])[None, :, : max(lengths)] for n in order])
        for form in network.FORMS:
            net = network.load(weights, model, form)
            for module in (net, trace(net)):
                with torch.inference_mode():
                    found, frames = module(torch.from_numpy(x), torch.tensor(lengths).int())
                for row, utterance in enumerate(order):
                    expected = reference[utterance]
                    assert int(frames[row]) == len(expected)
                    np.testing.assert_allclose(found[row, : len(expected)], expected, atol=1e-5)


def test_v3_checkpoints_load_without_their_packages(shared):
    """The settings are omegaconf objects of deepspeech_pytorch classes; neither is installed."""
    with pytest.raises(ModuleNotFoundError):
        torch.load(shared / "checkpoints" / f"{TINY[0]}.ckpt", weights_only=False)
    kinds = {}
    for path in sorted((shared / "checkpoints").glob("*.ckpt")):
        weights, description = checkpoint.read(str(path))
        architecture = Architecture(**description["architecture"])
        assert set(weights) == set(architecture.shapes())
        kinds[path.stem] = (architecture.rnn_type, architecture.bidirectional)
    assert kinds == {
        "an4_small_v3": ("lstm", True),
        "tiny_gru_bidirectional": ("gru", True),
        "tiny_lstm_unidirectional": ("lstm", False),
        "tiny_rnn_bidirectional": ("rnn", True),
    }


def test_one_flipped_bit_of_the_real_corpus_is_found(shared, an4_archive, tmp_path):
    """The real archive, repacked as an unpacked folder with one bit of one sample changed."""
    with tarfile.open(an4_archive) as archive:
        archive.extractall(tmp_path)
    identity = corpus.Identity(ROOT / "resources/an4/pcm_sha256.tsv")
    layout = layouts.create("an4", tmp_path / "an4")
    assert len(corpus.write(layout, tmp_path / "1", "upper", identity)) == 1078
    path = tmp_path / "an4/wav/an4test_clstk/fcaw/cen5-fcaw-b.raw"
    data = bytearray(path.read_bytes())
    data[50_001] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="utterance cen5-fcaw-b: samples differ"):
        corpus.write(layout, tmp_path / "2", "upper", identity)


def test_the_embedded_model_is_what_its_card_says(run, an4_archive):
    """On AN4 test it is better than the published model, which is fifteen times its size."""
    (run / "embedded.yaml").write_text(yaml.safe_dump({"run": {"models": ["embedded"]}}))
    target = "results/an4/embedded/cpu-fp32-trimmed/bs20/greedy/score.json"
    snakemake(
        run, "--cores", 2, "--configfile", "config/an4.yaml", "test.yaml", "embedded.yaml",
        "--config", f"archive={an4_archive}", "--", target,
    )  # fmt: skip
    found = json.loads((run / target).read_text())
    card = (run / "resources/checkpoints/README.md").read_text()
    assert f"| AN4 test, 130 utterances | {found['wer']['percent']:.3f} (" in card
    assert f" | {found['cer']['percent']:.3f} (" in card
    assert found["wer"]["percent"] <= 9.573 and found["cer"]["percent"] <= 5.515
    assert (run / "resources/checkpoints/embedded.safetensors").stat().st_size <= 15_000_000
