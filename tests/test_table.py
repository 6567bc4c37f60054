"""The table: columns, empty cells, published figures, and text that is no markup."""

import csv
import io
import json

import pandas as pd
import pytest
from deepspeech2 import table
from deepspeech2.stage import UserError
from helpers import assert_one_line_error, run_stage

FIRST = (
    "dataset model engine batch_size utterances wer cer substitutions deletions insertions "
    "identical_transcripts utterances_per_s rtfx latency_p50_ms latency_p90_ms latency_p99_ms "
    "verdict published_utterances_per_s"
).split()


def write_row(results, row, verdict="VALID", threads=2, p99=None, cpu="A CPU"):
    errors = {"substitutions": 3, "deletions": 2, "insertions": 1, "low": 1.0, "high": 20.0}
    score = {
        "utterances": 130,
        "identical_transcripts": 129,
        "wer": {"percent": 100 * 92 / 773, **errors},
        "cer": {"percent": 6.29552549, **errors},
    }
    latency = {"mean": 10.0, "std": 1.0, "p50": 9.87654, "p90": 11.0, "p95": 12.0, "p99": p99}
    timing = {
        "verdict": verdict,
        "reasons": ["spread 30% above 20%"] if verdict == "INVALID" else [],
        "utterances_per_s": 14.39951,
        "end_to_end_utterances_per_s": 14.3,
        "rtfx": 39.5,
        "latency_ms": latency,
        "spread": 0.0271,
        "environment": {"threads": threads, "cpu": cpu},
        "versions": {"torch": "2.13.0"},
        "peak_memory_bytes": 521973760,
        "padding_share": 0.6,
        "engine": {"backend": "torchscript", "options": {}},
        "checkpoint": "a.ckpt",
        "parameters": 5580832,
        "checkpoint_sha256": "0123456789abcdef" * 4,
    }
    folder = results / row
    folder.mkdir(parents=True)
    (folder / "score.json").write_text(json.dumps(score))
    (folder / "timing.json").write_text(json.dumps(timing))
    return row


def build(tmp_path, rows, *more):
    out = [f"--{kind}={tmp_path / 'table'}.{kind}" for kind in ("tsv", "md", "html")]
    return run_stage("table", "--results", tmp_path, "--rows", *rows, *more, *out)


def read(tmp_path):
    text = (tmp_path / "table.tsv").read_text()
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))


def test_columns_and_published_figures(tmp_path):
    rows = [write_row(tmp_path, f"an4/m/e/bs{n}", p99=12.5 if n == 1 else None) for n in (1, 2)]
    published = tmp_path / "published.tsv"
    published.write_text("# note\nbatch_size\tutterances_per_s\twer\n1\t1.2357\t9.573\n4\t4.9\t\n")
    result = build(tmp_path, rows, "--published", f"an4={published}")
    assert result.returncode == 0, result.stderr
    header = (tmp_path / "table.tsv").read_text().splitlines()[0].split("\t")
    assert header[: len(FIRST)] == FIRST
    first, second = read(tmp_path)
    assert [first[c] for c in FIRST] == (
        "an4 m e 1 130 11.902 6.296 3 2 1 129 14.400 39.500 9.88 11.00 12.50 VALID 1.2357".split()
    )
    assert second["published_utterances_per_s"] == "" and second["latency_p99_ms"] == ""
    assert first["engine_settings"] == "backend=torchscript options={}"
    assert first["published_wer"] == "9.573" and first["peak_memory_bytes"] == "521973760"
    text = (tmp_path / "table.md").read_text()
    assert "1.2357" in text and "\n- note\n" in text
    assert "Model m: a.ckpt, 5.6 million parameters, SHA-256 0123456789ab." in text


def test_rows_of_different_thread_counts_are_marked(tmp_path):
    rows = [write_row(tmp_path, f"d/m/e/bs{n}", threads=n) for n in (1, 2)]
    assert build(tmp_path, rows).returncode == 0
    text = (tmp_path / "table.md").read_text()
    assert "VALID (1 threads)" in text and "VALID (2 threads)" in text
    assert [r["verdict"] for r in read(tmp_path)] == ["VALID", "VALID"]


def test_invalid_rows_say_why(tmp_path):
    assert build(tmp_path, [write_row(tmp_path, "d/m/e/bs8", "INVALID")]).returncode == 0
    assert "d/m/e at batch size 8: spread 30% above 20%" in (tmp_path / "table.md").read_text()
    timing = json.loads((tmp_path / "d/m/e/bs8/timing.json").read_text())
    for reason, shown in (("1 of 5 warm-up batches", False), ("spread 30% above 20%", True)):
        timing.update(verdict="QUICK", reasons=[reason])
        (tmp_path / "d/m/e/bs8/timing.json").write_text(json.dumps(timing))
        assert build(tmp_path, ["d/m/e/bs8"]).returncode == 0
        assert (f"batch size 8: {reason}" in (tmp_path / "table.md").read_text()) == shown
    assert read(tmp_path)[0]["reasons"] == "spread 30% above 20%"


def test_text_never_becomes_markup(tmp_path):
    evil = "<script>alert(1)</script> | x"
    assert build(tmp_path, [write_row(tmp_path, "d/m/e/bs1", cpu=evil)]).returncode == 0
    for kind in ("html", "md"):
        assert "<script" not in (tmp_path / f"table.{kind}").read_text()
    frame = pd.DataFrame([{**dict.fromkeys(table.COLUMNS), "dataset": evil, "threads": 1}])
    frame["verdict"], frame["parameters"], frame["checkpoint_sha256"] = "VALID", 1, "0"
    assert "<script" not in table.page(frame) and "<script" not in table.markdown(frame)
    assert "\\|" in table.markdown(frame)
    frame["checkpoint"] = "[click](javascript:alert(1)) ![](x) `a` *b*"
    text = table.markdown(frame)
    assert "\\[click\\](" in text and "!\\[" in text and "\\`a\\`" in text and "\\*b\\*" in text


def test_missing_or_broken_results_are_named(tmp_path):
    row = write_row(tmp_path, "d/m/e/bs1")
    (tmp_path / row / "timing.json").write_text("{")
    assert_one_line_error(build(tmp_path, [row]), "timing.json", "broken JSON")
    (tmp_path / row / "timing.json").unlink()
    assert_one_line_error(build(tmp_path, [row]), "timing.json", "no such file")
    assert not (tmp_path / "table.tsv").exists()


def test_bad_published_tables(tmp_path):
    with pytest.raises(UserError, match="no such table"):
        table.read_published([f"an4={tmp_path / 'absent'}"])
    (tmp_path / "p.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(UserError, match="batch_size"):
        table.read_published([f"an4={tmp_path / 'p.tsv'}"])
    for row in ("1\tfast", "1\t2\n1\t3"):
        (tmp_path / "p.tsv").write_text(f"batch_size\twer\n{row}\n")
        with pytest.raises(UserError, match="p.tsv"):
            table.read_published([f"an4={tmp_path / 'p.tsv'}"])
    (tmp_path / "p.tsv").write_text("batch_size\twer\n1\t9.5\n4\t/\n")  # as the guide has it
    figures, _ = table.read_published([f"an4={tmp_path / 'p.tsv'}"])
    assert figures["an4"][1] == {"published_wer": 9.5} and pd.isna(
        figures["an4"][4]["published_wer"]
    )
