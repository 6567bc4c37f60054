"""The benchmarks' own code: what they compare is the same, and what they read is read rightly."""

import importlib
import json
import sys
from functools import partial

import numpy as np
import pytest
from conftest import ROOT
from deepspeech2 import cli
from helpers import LABELS, write_folder

sys.path.append(str(ROOT / "benchmarks"))


def test_the_reference_way_writes_the_same_features(tmp_path):
    bench = pytest.importorskip("preprocess")
    write_folder(tmp_path / "set", ("A B", "IT'S", "YES"))
    samples = [{"wav_path": f"u{n}.wav", "transcript_path": f"u{n}.txt"} for n in range(3)]
    manifest = tmp_path / "set.json"
    manifest.write_text(json.dumps({"root_path": "set", "samples": samples}))
    settings = bench.Settings(LABELS, bench.Spectrogram(), False)
    ways = {
        "ours": lambda folder: bench.preprocess(
            manifest, bench.jobs_of(manifest, settings), settings, folder, 2
        ),
        **{
            parse.__name__: partial(bench.reference, parse, manifest, LABELS)
            for parse in (bench.spectrogram, bench.lean_spectrogram)
        },
    }
    for name, way in ways.items():
        (tmp_path / name).mkdir()
        way(tmp_path / name)
    for name in list(ways)[1:]:
        files = {p.relative_to(tmp_path / name) for p in (tmp_path / name).rglob("*.*")}
        assert len(files) == 3 + 3 + 3
        for file in files:
            ours, theirs = ((tmp_path / way / file).read_bytes() for way in ("ours", name))
            if file.parts[0] == "spect":
                ours, theirs = np.frombuffer(ours, "f4"), np.frombuffer(theirs, "f4")
                np.testing.assert_allclose(ours, theirs, atol=1e-4)
            else:
                assert ours == theirs, file


def test_imports_are_counted_by_rule_and_library():
    import pipeline

    log = """import time:       900 |        900 | snakemake
localrule table:
    input: x
import time:    200000 |     200000 |     numpy.linalg
import time:    100000 |     300000 | numpy
import time:     50000 |     350000 | json
rule compile:
import time:   1000000 |    1000000 |   torch._C
"""
    found = pipeline.imports(log)
    assert {rule: {k: v for k, v in of.items() if v} for rule, of in found.items()} == {
        "table": {"numpy": pytest.approx(0.3), "others": pytest.approx(0.05)},
        "compile": {"torch": pytest.approx(1.0)},
    }


def test_a_job_with_several_outputs_counts_once(tmp_path):
    import pipeline

    folder = tmp_path / ".snakemake/metadata"
    folder.mkdir(parents=True)
    for name, log, start in (("a", "x", 1.0), ("b", "x", 1.0), ("c", "y", 0.5)):
        job = {"log": [log], "starttime": start, "endtime": 2.0, "rule": "score"}
        (folder / name).write_text(json.dumps(job))
    assert pipeline.jobs(tmp_path) == [(0.5, 2.0, "score"), (1.0, 2.0, "score")]


def test_the_pipelines_commands_are_the_stages(tmp_path, monkeypatch, capsys):
    """Every command line, without running it."""
    import pipeline

    stages = []

    def run(command, folder):
        name, *arguments = map(str, command)
        if name == "snakemake":
            manifest = folder / "results/datasets/an4/an4_test_manifest.json"
            manifest.parent.mkdir(parents=True, exist_ok=True)
            manifest.write_text(json.dumps({"samples": [{"id": "a"}]}))
            return 1.0, 100.0
        main = importlib.import_module(name).main
        stages.append((name.rpartition(".")[2], cli.parser_of(main).parse_args(arguments)))
        return 1.0, 100.0

    (tmp_path / "a.tar.gz").touch()
    monkeypatch.setattr(pipeline, "run", run)
    monkeypatch.setattr(pipeline, "where", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["x", "--archive", f"{tmp_path}/a.tar.gz", "--rounds", "1"])
    pipeline.main()
    assert [name for name, _ in stages] == 2 * ["preprocess", "compile", "infer", "timing"]
    assert "| timing, ratio of the two | 1.0 times |" in capsys.readouterr().out
    one, many = (values for name, values in stages if name == "timing")
    assert one.engine == many.engine and one.engine.padding == "batch" and one.threads == 2
    assert one.features != many.features
