"""The proof: its yardstick computes what the reference does, and its table says what it should."""

import csv
import itertools
import json
import platform
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from deepspeech2 import cli
from deepspeech2.cli import UserError
from deepspeech2.engines.native import instructions
from deepspeech2.features.batches import FeatureSet
from deepspeech2.model.architecture import Architecture
from deepspeech2.scoring.decoders.greedy import Decoder as Greedy
from helpers import LABELS, Loaded, run_stage, stages_to_features, write_folder, write_safetensors

sys.path.insert(0, str(ROOT / "benchmarks"))
import bench
import limit
import reference

FULL = Architecture(161, 29, "lstm", 1024, 5, True)


def test_operations_of_an4(shared):
    """Padding zeros in the convolutions' borders included, it is REFERENCE.md's 60.4 GFLOP."""
    with open(shared / "reference/transcripts.tsv", newline="") as file:
        frames = [int(row["frames"]) for row in csv.DictReader(file, delimiter="\t")]
    assert len(frames) == 130
    assert limit.operations(FULL, frames) == pytest.approx(3_460e9, rel=5e-4)
    assert limit.operations(FULL, [621], borders=True) == pytest.approx(60.4e9, rel=5e-4)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_operations_with_borders_are_those_that_torch_counts(kind):
    from torch.utils.flop_counter import FlopCounterMode

    a = Architecture(161, 29, kind, 16, 2, True)
    net = reference.Network(a).eval()
    with FlopCounterMode(display=False) as counter:
        net.conv(torch.zeros(1, 1, 161, 99), torch.tensor([50]))
        for layer in net.rnns:  # products of cells are not counted by torch: do them by hand
            for name, weight in layer.rnn.named_parameters():
                if name.startswith("weight"):
                    torch.mm(torch.zeros(50, weight.size(1)), weight.t())
        net.fc(torch.zeros(50, 1, 16))
    assert limit.operations(a, [99], borders=True) == counter.get_total_flops()


@pytest.fixture(scope="module")
def an4_features(an4_archive, tmp_path_factory):
    """AN4 test's features by the stages, with the shared checkpoint's model beside them."""
    folder = tmp_path_factory.mktemp("an4")
    checkpoint = an4_archive.parents[2] / "checkpoints/an4_small_v3.ckpt"
    for stage, *arguments in stages_to_features(checkpoint, an4_archive):
        result = run_stage(stage, *arguments, cwd=folder)
        assert result.returncode == 0, result.stderr
    return folder


def test_the_reference_row_is_the_reference(shared, an4_features):
    """Posteriors within 1e-5 and all transcripts, in its own batches of 20."""
    found = FeatureSet(an4_features / "features", an4_features / "features.json")
    description = json.loads((an4_features / "m.json").read_text())
    architecture = Architecture(**description["architecture"])
    net = reference.load(an4_features / "m.safetensors", architecture)
    posteriors = {}

    def keep(batch, lengths):
        start = len(posteriors)
        probabilities, lengths = net(batch, lengths)
        for row, length in enumerate(lengths):
            name = found.utterances[start + row]["id"]
            posteriors[name] = probabilities[row, :length].numpy()
        return probabilities, lengths

    texts = reference.transcribe(keep, found, description["labels"], reference.BATCH_SIZE)
    with np.load(shared / "reference/posteriors_8.npz") as expected:
        for name in expected.files:
            np.testing.assert_allclose(posteriors[name], expected[name], rtol=0, atol=1e-5)
    with open(shared / "reference/transcripts.tsv", newline="") as file:
        rows = {row["id"]: row["hypothesis"] for row in csv.DictReader(file, delimiter="\t")}
    assert {u["id"]: text for u, text in zip(found.utterances, texts)} == rows


def plain_greedy(posteriors, labels):
    """The definition, step by step."""
    best = [int(np.argmax(frame)) for frame in posteriors]
    merged = [label for label, _ in itertools.groupby(best)]
    return "".join(labels[label] for label in merged if label != 0)


@pytest.mark.parametrize("seed", range(5))
def test_greedy_is_the_plain_loop(seed):
    random = np.random.default_rng(seed)
    classes = (2, 3, 5, 29, 29)[seed]
    posteriors = random.random((7, 40, classes), np.float32)
    posteriors[1] = posteriors[1, :1]  # one label all the way
    posteriors[2] = 0  # ties: the first label, the blank
    posteriors[3, ::2, 0] = 2  # a blank between every two
    lengths = np.array([40, 40, 40, 40, 1, 17, 39], np.int32)
    expected = [plain_greedy(p[:n], LABELS) for p, n in zip(posteriors, lengths)]
    decoder = Greedy(LABELS)
    assert decoder.batch(posteriors, lengths) == expected
    assert [decoder(p[:n]).text for p, n in zip(posteriors, lengths)] == expected
    tensors = torch.from_numpy(posteriors), torch.from_numpy(lengths)
    assert reference.greedy(*tensors, LABELS) == expected


def test_greedy_of_no_frames_and_of_no_utterances():
    decoder = Greedy(LABELS)
    assert decoder.batch(np.zeros((2, 3, 5)), np.array([0, 0])) == ["", ""]
    assert decoder.batch(np.zeros((0, 3, 5)), np.array([], int)) == []
    assert decoder(np.zeros((0, 5))).text == ""


def test_parts_of_a_set_share_its_files():
    found = Loaded([9, 7, 5])
    twice = bench.repeated(found, 2)
    assert [u["id"] for u in twice.utterances] == ["u0", "u0", "u1", "u1", "u2", "u2"]
    assert twice.load(3) is found.data[1] and len(twice) == 6


@pytest.mark.parametrize("size", [1, 8, 16, 64])
def test_a_sample_is_of_whole_batches(size):
    part = bench.sample(bench.repeated(Loaded([9, 7, 5]), 40), size)
    starts = part.positions[::size]
    assert starts[0] == 0 and all(start % size == 0 for start in starts)
    expected = [p for start in starts for p in range(start, min(start + size, 120))]
    assert part.positions == expected and len(expected) >= min(120, 32)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What `snakemake bench` makes, of a tiny model and three recordings."""
    folder = tmp_path_factory.mktemp("bench")
    write_folder(folder / "audio")
    write_safetensors(folder / "tiny.safetensors")
    model, place = "results/models/tiny", "results/own/tiny"
    weights = ("--weights", f"{model}/model.safetensors", "--model", f"{model}/model.json")
    found = ("--features", f"{place}/features", "--features-index", f"{place}/features.json")
    eager = f"{place}/eager"
    for stage, *arguments in (
        ("model.convert", "--checkpoint", "tiny.safetensors", *weights),
        *(("model.torchscript", *weights, "--form", form, "--torchscript",
           f"{model}/torchscript_{form}.pt", "--index", f"{model}/torchscript_{form}.json")
          for form in ("static", "packed")),
        ("corpus.corpus", "--layout", "folder", "--source", "audio", "--text-case", "upper",
         "--labels", ROOT / "resources/labels.json", "--corpus", "corpus", "--index", "c.json",
         "--labels-copy", "labels.json"),
        ("corpus.manifest", "--index", "c.json", "--corpus", "corpus", "--split", "all",
         "--manifest", "manifest.json"),
        ("features.preprocess", "--manifest", "manifest.json", *weights[2:],
         "--labels", "labels.json", "--features", f"{place}/features",
         "--index", f"{place}/features.json"),
        ("model.eager", *found, *weights, "--posteriors", f"{eager}/p.bin",
         "--index", f"{eager}/p.json"),
        ("scoring.decode", "--posteriors", f"{eager}/p.bin",
         "--posteriors-index", f"{eager}/p.json", *found[2:],
         "--transcripts", f"{eager}/transcripts.jsonl", "--index", f"{eager}/transcripts.json"),
    ):  # fmt: skip
        result = run_stage(stage, *arguments, cwd=folder)
        assert result.returncode == 0, result.stderr
    return folder / "results"


@pytest.fixture
def run(results, monkeypatch, capsys):
    monkeypatch.setattr(limit, "SECONDS", 0)
    monkeypatch.setattr(limit, "REPEATS", 20)
    monkeypatch.setattr(limit, "SHAPES", ((64, 64, 64),))
    threads = torch.get_num_threads()

    def call(*more):
        common = ["--results", results, "--dataset", "own", "--models", "tiny"]
        cli.call(bench.main, [*map(str, common), *more])
        return capsys.readouterr().out

    yield call
    torch.set_num_threads(threads)


def test_the_table_of_a_tiny_model(run, results):
    out = run("--engines", "cpu-fp32", "cpu-fp32-trimmed", "--batch-sizes", "1", "2",
              "--rounds", "2")  # fmt: skip
    text = (results / "bench.tsv").read_text()
    assert text.startswith(
        "model\trow\tengine\tbatch_size\tutterances_per_s\tratio_to_reference\tratio_to_guide\t"
        "share_of_peak\twer\tidentical_transcripts\tutterances_per_s_min\tutterances_per_s_max\t"
    )
    rows = list(csv.DictReader(text.splitlines(), delimiter="\t"))
    assert [row["row"] for row in rows] == [
        "reference",
        *["guide"] * 2,
        *["ours"] * 2,
        *["limit"] * 3,
    ]
    assert [row["batch_size"] for row in rows[:3]] == ["20", "1", "16"]
    assert {row["batch_size"] for row in rows[3:5]} <= {"1", "2"}
    for row in rows[:5]:
        assert row["identical_transcripts"] == "3" and float(row["wer"]) > 0
        low, middle, high = (row[f"utterances_per_s{end}"] for end in ("_min", "", "_max"))
        assert 0 < float(low) <= float(middle) <= float(high)
    assert rows[0]["ratio_to_reference"] == rows[2]["ratio_to_guide"] == "1"
    assert [row["share_of_peak"] for row in rows[5:]] == ["1"] * 3
    assert not any(row["wer"] for row in rows[5:])
    figures = r"[\d.e+]+ \([\d.e+]+ to [\d.e+]+\)"
    assert re.search(rf"(?m)^\| tiny +\| ours +\| cpu-fp32 +\| [12] +\| {figures} ", out)
    sequences, _, table = out.partition("\n\n")
    assert re.search(r"(?m)^\| int8 \| \S.* \| [\d.]+ \|$", sequences)
    assert "times the reference" in table.partition("\n")[0]
    assert re.search(r"(?m)^(met|missed): tiny, cpu-fp32", out)
    assert re.search(r"(?m)^fastest at fp32: tiny: cpu-fp32(-trimmed)? [\d.e+]+, cpu-fp32", out)


def test_growth_and_profile_of_a_tiny_model(run, monkeypatch):
    out = run("--growth", "cpu-fp32-trimmed", "--batch-sizes", "2")
    assert "| 3 |" in out and "| 30 |" in out and "| 300 |" in out
    assert "100 times as many" in out
    out = run("--profile", "cpu-fp32-packed", "--batch-sizes", "2")
    assert all(f"| {part} |" in out for part in ("assemble", "forward", "decode"))
    assert "in it" not in out
    out = run("--profile", "native-fp32", "--batch-sizes", "2")
    seconds = {
        part: float(cell)
        for part, cell, _ in (line[1:-1].split(" | ") for line in out.splitlines()[3:])
    }
    inside = {part: value for part, value in seconds.items() if "in it" in part}
    assert bool(inside) == (platform.machine().lower() in ("x86_64", "amd64"))
    if inside:
        assert len(inside) == 9 and min(inside.values()) >= 0
        assert sum(inside.values()) == pytest.approx(seconds[" forward"], rel=0.2, abs=1e-3)


@pytest.mark.parametrize(("device", "warm_up"), [("cpu", 2), ("cuda", 5)])
def test_every_width_is_warm_on_a_gpu(device, warm_up):
    """Else the first round would record CUDA graphs."""
    met = []
    row = bench.Row("ours", "e", 2, "fp32", lambda features: met.append(len(features)) or ["A"])
    features = bench.Part(SimpleNamespace(bins=1, frames_max=9, utterances=[{}] * 5), range(5))
    assert bench.timed(row, features, device)[1] == ["A"]
    assert met == [warm_up, 5]


def line(engine, model="embedded", wrong=45, **values):
    return {
        "model": model, "row": "ours", "engine": engine, "batch_size": 8, "precision": "int8",
        "utterances_per_s": 20.0, "ratio_to_reference": 9.0, "ratio_to_guide": 11.0,
        "share_of_peak": 0.76, "wrong": wrong, **values,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sequence", "ratio", "shares"),
    [("AVX-512 VNNI", 8.5, (0.92, 0.87, 0.8)), ("AVX2", 2.2, (0.9, 0.85, 0.75)),
     ("NEON", 2.2, (0.9, 0.85, 0.75))],
)  # fmt: skip
def test_goals(monkeypatch, sequence, ratio, shares):
    monkeypatch.setattr(limit, "sequence", lambda _: SimpleNamespace(name=sequence))
    full = bench.FULL_SIZE
    table = [
        line("native-int8", wrong=46, of_best_batch=0.6),
        line("lossy", wrong=47, utterances_per_s=99.0),
        line("native-int8", full, wrong=700, share_of_peak=0.86),
        line("native-fp32", full, precision="fp32", utterances_per_s=25.0, share_of_peak=0.91),
        line("cpu-fp32", full, precision="fp32", utterances_per_s=5.0),
        line("lossy", full, utterances_per_s=99.0),
        line("trace", wrong=45, row="guide"),
    ]

    def judged(value, target):
        return "met" if value >= target else "missed"

    assert not any("the reference" in line for line in bench.goals(table[:-1], {"embedded": 45}))
    assert bench.goals(table, {"embedded": 45}) == [
        "missed: embedded, native-int8 at batch size 8: 11 times the guide at batch size 16 "
        "(target 12)",
        f"{judged(0.76, shares[2])}: embedded, native-int8 at batch size 8: 0.76 of the limit "
        f"(target {shares[2]:g})",
        "missed: embedded, native-int8 at batch size 8: 0.6 of its best batch size's speed at "
        "batch size 1 (target 0.7)",
        "fastest at int8: embedded: lossy 99, native-int8 20 utterances/s",
        f"met: {full}, native-fp32 at batch size 8: 9 times the reference (target {ratio:g})",
        f"met: {full}, native-fp32 at batch size 8: 25 utterances/s (target 18.76)",
        f"missed: {full}, native-fp32 at batch size 8: 11 times the guide at batch size 16 "
        "(target 12)",
        f"{judged(0.86, shares[1])}: {full}, native-int8 at batch size 8: 0.86 of the limit "
        f"(target {shares[1]:g})",
        f"{judged(0.91, shares[0])}: {full}, native-fp32 at batch size 8: 0.91 of the limit "
        f"(target {shares[0]:g})",
        f"fastest at int8: {full}: lossy 99, native-int8 20 utterances/s",
        f"fastest at fp32: {full}: native-fp32 25, cpu-fp32 5 utterances/s",
        f"missed: {full}, native-int8 at batch size 8: 0.8 times native-fp32 (target 1)",
        "left out: lossy: it does not keep the transcripts",
    ]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_every_sequence_has_a_limit_and_none_stays_chosen(monkeypatch, precision):
    monkeypatch.setattr(limit, "REPEATS", 20)
    chosen, plain = limit.sequence(precision), instructions.SEQUENCES[precision][-1]
    own, slow = (limit.sequence_peak(precision, s, 1) for s in (chosen, plain))
    assert own > 0 and slow > 0 and instructions.sequence(precision) == chosen


def test_an_unknown_engine_is_named(run):
    with pytest.raises(UserError, match="engine 'none' is not defined; defined are: cpu-fp32,"):
        run("--engines", "none")


def test_what_was_not_made_yet_is_named_with_what_makes_it(run):
    with pytest.raises(UserError, match=r"none.model\.json: not there; it is made by `make "):
        run("--models", "none", "--profile", "cpu-fp32")
