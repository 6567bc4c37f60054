"""The table: columns, empty cells, published figures, and text that is no markup."""

import csv
import io

import pandas as pd
import pytest
from deepspeech2.cli import UserError
from deepspeech2.report import published, summary, table
from deepspeech2.report.columns import as_text, for_readers, frame, to_markdown
from deepspeech2.report.rows import mixed, read_record
from deepspeech2.report.summary import COLUMNS, notes, summarise
from deepspeech2.report.tsv import for_programs
from deepspeech2.serving.arrivals import Rule
from helpers import assert_one_line_error, latencies, rates_content, run_stage, timing_content
from helpers import write_row as write

# The columns that a reader sees come first, those for programs follow.
FIRST = {
    "dataset": "an4",
    "model": "m",
    "engine": "e1",
    "batch_size": "1",
    "decoder": "greedy",
    "verdict": "VALID",
    "utterances_per_s": "14.400",
    "published_utterances_per_s": "1.2357",
    "published_acl_utterances_per_s": "",
    "zeros_utterances_per_s": "",
    "rtfx": "39.500",
    "wer": "11.902",
    "wer_whisper": "",
    "published_wer": "9.573",
    "cer": "6.296",
    "published_cer": "",
    "latency_p50_ms": "9.88",
    "latency_p90_ms": "11.00",
    "latency_p99_ms": "12.50",
}
MORE = {
    "decode_ms": "0.500",
    "utterances": "130",
    "substitutions": "3",
    "deletions": "2",
    "insertions": "1",
    "identical_transcripts": "129",
    "wer_low": "1.000",
    "wer_high": "20.000",
    "reasons": "",
    "disturbed": "",
    "end_to_end_utterances_per_s": "14.249",
    "spread": "0.027",
    "padding_share": "0.600",
    "padding_share_longest": "0.600",
    "padding_share_batch": "0.123",
    "fill_up_rows": "0",
    "batches": "130",
    "seconds": "10.250",
    "threads": "2",
    "other_load": "0.046",
    "load_before": "0.012",
    "governor": "performance",
    "compile_seconds": "0.500",
    "artefact_bytes": "22353289",
    "peak_memory_bytes": "521973760",
    "peak_device_memory_bytes": "",
    "engine_settings": "backend=torchscript options={}",
    "cpu": "A CPU",
    "versions": "torch 2.13.0",
    "checkpoint": "a.ckpt",
    "parameters": "5580832",
    "manifest": "an4_test_manifest.json",
    "dataset_sha256": "2" * 64,
    "git_revision": "f" * 40 + "+changes",
    "stream_mean_ms": "12.00",
    "stream_p50_ms": "7.00",
    "stream_p90_ms": "8.13",
    "stream_p95_ms": "9.00",
    "stream_p99_ms": "",
    "stream_verdict": "QUICK",
    "stream_reasons": "a; b",
    "ser": "40.000",
    "scored": "130",
    "of": "131",
    "empty": "7",
    "wer_unseen": "20.500",
    "unseen_utterances": "65",
    "largest_posterior_difference": "1.25e-07",
}
# What one waits for is an utterance from its features to its posteriors.
STREAM = timing_content(
    verdict="QUICK",
    reasons=["a", "b"],
    end_to_end_latency_ms={**latencies(), "mean": 12.0, "p50": 7.0, "p90": 8.126, "p95": 9.0},
)


def write_row(results, row, verdict="VALID", threads=2, cpu="A CPU", **changes):
    """A row whose verdict has a reason."""
    reasons = ["spread 30% above 20%"] if verdict == "INVALID" else []
    environment = {**timing_content()["environment"], "threads": threads, "cpu": cpu}
    timing = {"verdict": verdict, "reasons": reasons, "environment": environment}
    changes["timing"] = {**timing, **changes.get("timing", {})}
    return write(results, row, **changes)


def build(tmp_path, records, **tables):
    """Write the tables of some rows; returns the rows of the TSV."""
    table.main(records, tables, tmp_path / "table.tsv", tmp_path / "table.md")
    text = (tmp_path / "table.tsv").read_text()
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))


def test_columns_and_published_figures(tmp_path):
    rows = [
        write_row(
            tmp_path, f"an4/m/e{n}/bs{n}/greedy",
            timing={"latency_ms": latencies(12.5 if n == 1 else None)}, single_stream=STREAM,
        )
        for n in (1, 2)
    ]  # fmt: skip
    path = tmp_path / "published.tsv"
    path.write_text("# note\nbatch_size\tutterances_per_s\twer\n1\t1.2357\t9.573\n4\t4.9\t\n")
    first, second = build(tmp_path, rows, an4=path)
    header = (tmp_path / "table.tsv").read_text().splitlines()[0].split("\t")
    assert header[: len(FIRST)] == list(FIRST) and len(set(header)) == len(header)
    assert {name: first[name] for name in (*FIRST, *MORE)} == {**FIRST, **MORE}
    assert second["published_utterances_per_s"] == "" and second["latency_p99_ms"] == ""
    text = (tmp_path / "table.md").read_text()
    assert "1.2357" in text and "\n- note\n" in text
    assert "Model m: a.ckpt, 5.6 million parameters, SHA-256 0123456789ab." in text
    assert "\n- an4: scored 130 of 131 utterances, empty 7.\n" in text
    assert "| 7.0 " in text and "| 8.1 " in text and "single p99" not in text  # empty everywhere


def test_what_is_missing_is_empty(tmp_path):
    """Without a list of training texts there are no unseen utterances; no p99 below 100 batches."""
    parts = {"speaker": [], "length": [], "text": [], "seen": []}
    seen = [{"name": "seen in training", **rates_content()}]
    for kind in ([], seen):
        row = write_row(tmp_path, "d/m/e/bs1/greedy", score={"parts": {**parts, "seen": kind}})
        (found,) = build(tmp_path, [row])
        assert found["wer_unseen"] == found["unseen_utterances"] == found["stream_p99_ms"] == ""


def test_whole_numbers_stay_whole_beside_missing_ones(tmp_path):
    """A GPU's row has device memory, a CPU's has none: pandas makes floats of such a column."""
    parts = {"speaker": [], "length": [], "text": [], "seen": []}
    memory = {"peak_device_memory_bytes": 1_234_567_890}
    rows = [
        write_row(tmp_path, "d/m/gpu/bs1/greedy", timing=memory),
        write_row(tmp_path, "d/m/cpu/bs1/greedy", score={"parts": parts}),
    ]
    gpu, cpu = build(tmp_path, rows)
    assert (gpu["peak_device_memory_bytes"], cpu["peak_device_memory_bytes"]) == ("1234567890", "")
    assert (gpu["unseen_utterances"], cpu["unseen_utterances"]) == ("65", "")


@pytest.mark.parametrize(
    ("backend", "device", "told"),
    [
        ("torchscript", "cpu", False),
        ("torchscript", "cuda:0", False),
        ("torchscript", "npu:0", True),
        ("torch_aie", "npu:1", True),
        ("somebody_elses", "cpu", False),
    ],
)
def test_devices_that_the_authors_never_had_are_told(tmp_path, backend, device, told):
    engine = {"backend": backend, "device": device, "options": {}}
    build(tmp_path, [write_row(tmp_path, "d/m/e/bs1/greedy", timing={"engine": engine})])
    line = (
        f"Engine e: its backend {backend} has never run on real hardware of this kind "
        f"(device {device.partition(':')[0]})"
    )
    assert (line in (tmp_path / "table.md").read_text().replace("\\", "")) == told


def test_coverage_is_told_once_for_all_rows_that_have_it(tmp_path):
    rows = [write_row(tmp_path, f"d/m/e/bs{n}/greedy") for n in (1, 2)]
    less = {"coverage": {"scored": 129, "of": 131, "empty": 0}}
    rows += [
        write_row(tmp_path, "d/m/e/bs4/greedy", score=less),
        write_row(tmp_path, "other/m/e/bs1/greedy"),
    ]
    build(tmp_path, rows)
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert [line for line in lines if "scored" in line and "empty" in line] == [
        "- d/m/e: scored 130 of 131 utterances, empty 7.",
        "- d/m/e: scored 129 of 131 utterances, empty 0.",
        "- other: scored 130 of 131 utterances, empty 7.",
    ]


SKIPPED = {"passed_over": {"no_audio": 2, "other": 9, "unreadable": 1}}
CHANGED = {
    "utterances": [
        {"split": split, "notes": notes}
        for split, notes in (
            ("test", ["resampled from 8000 Hz"]),
            ("test", ["resampled from 8000 Hz", "2 channels averaged"]),
            ("test", []),
            ("train", ["resampled from 44100 Hz"]),
        )
    ]
}


@pytest.mark.parametrize(
    ("split", "corpus", "expected"),
    [
        ("all", {}, ["d: scored 130 of 131 utterances, empty 7."]),
        ("all", {"passed_over": {"other": 1}}, ["d: scored 130 of 131 utterances, empty 7."]),
        (
            "all",
            SKIPPED,
            ["d: scored 130 of 134 utterances: 3 skipped (2 no_audio, 1 unreadable), empty 7."],
        ),
        (
            "test",
            {**SKIPPED, **CHANGED},
            [
                "d: scored 130 of 131 utterances, empty 7; 3 skipped (2 no_audio, 1 unreadable) in "
                "all splits.",
                "d: 2 of 3 recordings resampled from 8000 Hz; "
                "1 of 3 recordings 2 channels averaged.",
            ],
        ),
    ],
)
def test_what_a_corpus_lost_is_told(tmp_path, split, corpus, expected):
    build(tmp_path, [write_row(tmp_path, "d/m/e/bs1/greedy", split=split, corpus=corpus)])
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert [line[2:] for line in lines if line.startswith("- d: ")] == expected


def test_a_single_stream_of_another_machine_is_told(tmp_path):
    """It is measured once for all batch sizes, so maybe with other threads, or elsewhere."""
    environment = {**timing_content()["environment"], "threads": 1, "cpu": "Another CPU"}
    rows = [write_row(tmp_path, "d/m/e/bs1/greedy", single_stream={"environment": environment})]
    build(tmp_path, rows)
    text = (tmp_path / "table.md").read_text()
    assert "Single latency of d/m/e: measured on Another CPU with 1 threads." in text
    build(tmp_path, [write_row(tmp_path, "d/m/e/bs1/greedy")])
    assert "Single latency of" not in (tmp_path / "table.md").read_text()


def test_rows_of_different_thread_counts_are_marked(tmp_path):
    rows = [write_row(tmp_path, f"d/m/e/bs{n}/greedy", threads=n) for n in (1, 2)]
    found = build(tmp_path, rows)
    text = (tmp_path / "table.md").read_text()
    assert "VALID (1 threads)" in text and "VALID (2 threads)" in text
    assert [r["verdict"] for r in found] == ["VALID", "VALID"]


def test_invalid_rows_say_why(tmp_path):
    build(tmp_path, [write_row(tmp_path, "d/m/e/bs8/greedy", "INVALID")])
    assert "d/m/e at batch size 8: spread 30% above 20%" in (tmp_path / "table.md").read_text()
    asked, disturbed = "1 of 5 warm-up batches", "spread 30% above 20%"
    for reasons, shown in (([asked], False), ([asked, disturbed], True)):
        timing = {"reasons": reasons, "disturbed": [r for r in reasons if r == disturbed]}
        row = write_row(tmp_path, "d/m/e/bs8/greedy", "QUICK", timing=timing)
        (found,) = build(tmp_path, [row])
        text = (tmp_path / "table.md").read_text()
        assert (f"QUICK: d/m/e at batch size 8: {'; '.join(reasons)}." in text) == shown
    assert found["reasons"] == f"{asked}; {disturbed}" and found["disturbed"] == disturbed


def test_an_invalid_single_stream_is_noted_once(tmp_path):
    stream = {"verdict": "INVALID", "reasons": ["other load 40% above 10%", "99 of 100 batches"]}
    rows = [write_row(tmp_path, f"d/m/e/bs{n}/greedy", single_stream=stream) for n in (1, 2)]
    rows.append(write_row(tmp_path, "d/m/steady/bs1/greedy"))
    found = build(tmp_path, rows)
    note = "d/m/e, one utterance at a time: other load 40% above 10%; 99 of 100 batches."
    text = (tmp_path / "table.md").read_text()
    assert text.count(f"- INVALID: {note}") == 1 == text.count("INVALID")
    assert [(r["verdict"], r["stream_verdict"]) for r in found] == [
        ("VALID", "INVALID"), ("VALID", "INVALID"), ("VALID", "VALID")
    ]  # fmt: skip


def test_a_server_is_a_column_and_its_rule_a_note(tmp_path):
    """0 where no rate holds; rows without it have an empty cell."""
    records = [read_record(write_row(tmp_path, f"d/m/e{n}/bs8/greedy")) for n in range(3)]
    rule = Rule(250.0, 8, 5.0, 10.0)
    for record, rate in zip(records, (40.5, None)):
        record["server"] = {
            "rule": rule._asdict(), "utterances_per_s": rate, "audio_seconds": 2.0,
            "verdict": "INVALID", "reasons": ["busy"], "disturbed": ["busy"],
        }  # fmt: skip
    rows = summarise(records, {})
    texts = as_text(COLUMNS, rows)
    assert texts["server_utterances_per_s"].tolist() == ["40.500", "0.000", ""]
    assert texts["server_speakers"].tolist() == ["81.0", "0.0", ""]
    assert summary.shown(rows)["server utterances/s"].tolist() == ["40.50", "0.00", ""]
    lines = notes(rows, [])
    (line,) = (line for line in lines if line.startswith("Server: "))
    assert "8 at most, the first after 5 ms" in line and "99 % have their transcript 250 ms" in line
    assert [f"INVALID: d/m/e{n}, as a server: busy." in lines for n in range(3)] == [1, 1, 0]


def test_text_never_becomes_markup(tmp_path):
    evil = "<script>alert(1)</script> | x"
    stream = {"verdict": "INVALID", "reasons": [evil]}
    row = write_row(tmp_path, "d/m/e/bs1/greedy", "INVALID", cpu=evil, single_stream=stream,
                    timing={"checkpoint": evil, "reasons": [evil]})  # fmt: skip
    build(tmp_path, [row])
    text = (tmp_path / "table.md").read_text()
    assert "<script" not in text and text.count("alert(1)") == 4 and "\\| x" in text
    texts = as_text(COLUMNS, frame(COLUMNS, [read_record(row)]), readers=True)
    texts["dataset"], texts["model"] = evil, "[click](javascript:alert(1)) ![](x) `a` *b*"
    text = to_markdown(for_readers(COLUMNS, texts))
    assert "<script" not in text and "&lt;script&gt;alert(1)&lt;/script&gt; \\| x" in text
    assert "\\[click\\](" in text and "!\\[" in text and "\\`a\\`" in text and "\\*b\\*" in text


def test_missing_or_broken_results_are_named(tmp_path):
    row = write_row(tmp_path, "d/m/e/bs1/greedy")
    row.write_text("{")
    with pytest.raises(UserError, match="record.json: .*broken JSON"):
        build(tmp_path, [row])
    row.write_text('{"format": 0, "row": "d/m/e/bs1/greedy"}')
    with pytest.raises(UserError, match="record.json: not the record of d/m/e/bs1/greedy"):
        build(tmp_path, [row])
    row.unlink()
    outputs = ("--tsv", tmp_path / "table.tsv", "--md", tmp_path / "table.md")
    result = run_stage("report.table", "--records", row, "--published", *outputs)
    assert_one_line_error(result, "record.json", "no such file")
    assert not (tmp_path / "table.tsv").exists()


def test_bad_published_tables(tmp_path):
    path = tmp_path / "p.tsv"
    with pytest.raises(UserError, match="no such file"):
        published.read({"an4": tmp_path / "absent"})
    path.write_text("a\tb\n1\t2\n")
    with pytest.raises(UserError, match="batch_size"):
        published.read({"an4": path})
    for row in ("1\tfast", "1\t2\n1\t3"):
        path.write_text(f"batch_size\twer\n{row}\n")
        with pytest.raises(UserError, match="p.tsv"):
            published.read({"an4": path})
    path.write_text("batch_size\twer\n1\t9.5\n4\t/\n")  # as the guide has it
    figures, _ = published.read({"an4": path})
    assert figures["an4"][1] == {"published_wer": 9.5}
    assert pd.isna(figures["an4"][4]["published_wer"])


def test_what_other_versions_computed_is_told(tmp_path):
    """And settings from outside that change the bits of results."""
    path = write(
        tmp_path, "d/m/e/bs1/greedy", agreement={"eager_versions": {"torch": "2.99"}},
        features={"dropped": {}, "versions": {"numpy": "2.3.4", "soxr": "1.1"}},
    )  # fmt: skip
    record = read_record(path)
    assert mixed(record) == "eager by torch 2.99, speed by torch 2.13.0"
    record["environment"]["outside"] = {"MKL_CBWR": "COMPATIBLE"}
    record["single_stream"]["environment"]["versions"] = {"torch": "1"}
    assert mixed(record).endswith("single latency by torch 1, speed by torch 2.13.0; "
                                  "with MKL_CBWR=COMPATIBLE")  # fmt: skip
    assert "Engine e: eager by torch 2.99" in "\n".join(notes(summarise([record], {}), []))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=cmd|'/C calc'!A0", "'=cmd|'/C calc'!A0"), ("+1+1", "'+1+1"), ("@SUM(1)", "'@SUM(1)"),
        ("-2+3", "'-2+3"), (" =1", "' =1"), ("-", "'-"), ("-1.5", "-1.5"), ("+3", "+3"),
        ("1e-5", "1e-5"), ("-1e+5", "-1e+5"), ("A=B", "A=B"), ("", ""), ("O'CLOCK", "O'CLOCK"),
    ],
)  # fmt: skip
def test_a_spreadsheet_computes_nothing(text, shown):
    rows = list(
        csv.reader(io.StringIO(for_programs(pd.DataFrame({"a": [text, "x"]}))), "excel-tab")
    )
    assert rows[1] == [shown] or (not text and rows[1] == [""])


def test_published_figures_stand_beside_greedy_rows_only(tmp_path):
    beam = {"decoder": {"kind": "beam", "options": {"alpha": 0.5}}}
    rows = [
        write_row(tmp_path, "an4/m/e/bs1/greedy"),
        write_row(tmp_path, "an4/m/e/bs1/beam", transcripts=beam),
    ]
    path = tmp_path / "published.tsv"
    path.write_text("batch_size\tutterances_per_s\twer\n1\t1.2357\t9.573\n")
    greedy, other = build(tmp_path, rows, an4=path)
    assert (greedy["decoder"], greedy["published_wer"]) == ("greedy", "9.573")
    assert other["decoder"] == "beam"
    assert other["published_wer"] == other["published_utterances_per_s"] == ""
    assert "Decoder beam: beam, alpha=0.5." in (tmp_path / "table.md").read_text()
