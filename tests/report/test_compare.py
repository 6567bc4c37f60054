"""Two runs compared: every verdict and its reason, and the gate behind them."""

import csv
import json
import shutil

import numpy as np
import pytest
from deepspeech2.cli import UserError
from deepspeech2.files import read_sealed, sha256
from deepspeech2.report import FORMAT, compare, difference, gate
from deepspeech2.report.limits import Limits
from helpers import assert_one_line_error, run_stage, write_sealed

ROW, OTHER_ROW = "d/m/e/bs1/greedy", "d/m/e/bs2/greedy"
REFERENCES = {f"u{n}": f"WORD NUMBER {'ABCDEFGHIJKLMNOPQRST'[n]}" for n in range(20)}
NAMES = [column.name for column in compare.COLUMNS if not column.joins]  # of the table for programs
EVIL = "<script>alert(1)</script> | x\n\x1b[31m [a](b) `c` \u202e"


def write_row(results, row=ROW, hypotheses=None, references=None, change=None, **offline):
    """A row's record and transcripts; `hypotheses` replace single references, by id.

    `change` sets fields of the record by dotted name, None removes them.
    """
    references = REFERENCES if references is None else references
    texts = {**references, **(hypotheses or {})}
    lines = [
        {"id": name, "duration": 1.0, "reference": text, "hypothesis": texts[name]}
        for name, text in references.items()
    ]
    folder = results / row
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "transcripts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    hashes = ("checkpoint", "dataset", "timing_code", "accuracy_code")
    record = {
        "format": FORMAT,
        "row": row,
        "configuration": {
            "engine": {"backend": "torchscript", "device": "cpu"},
            "decoder": {"kind": "greedy"},
        },
        "environment": {"cpu": "A CPU", "threads": 2, "versions": {"torch": "2.13.0"}},
        "hashes": {**dict.fromkeys(hashes, "0"), "transcripts": sha256(path)},
        "checkpoint": "a.ckpt",
        "offline": {"verdict": "VALID", "utterances_per_s": 10.0, "spread": 0.05, "batches": 100},
    }
    record["offline"].update(offline)
    for name, value in (change or {}).items():
        *keys, last = name.split(".")
        place = record
        for key in keys:
            place = place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value
    write_sealed(folder / "record.json", record)
    return row


@pytest.fixture
def folders(tmp_path):
    """A baseline and results, with one and the same row in both."""
    write_row(tmp_path / "baseline")
    write_row(tmp_path / "results")
    return tmp_path / "baseline", tmp_path / "results"


def all_rows(folders, *rows, **limits):
    """The comparison of some rows."""
    records = [folders[1] / row / "record.json" for row in rows]
    return compare.compare(folders[0], records, Limits(**limits))


def one_row(folders, **limits):
    (row,) = all_rows(folders, ROW, **limits)
    assert set(row) == set(NAMES)
    return row


def build(folders, rows=(ROW,), **limits):
    """Write the comparison's files."""
    records = [folders[1] / row / "record.json" for row in rows]
    outputs = (folders[1] / f"comparison.{kind}" for kind in ("tsv", "md", "json"))
    compare.main(records, folders[0], *Limits(**limits), *outputs)


def fails_in_one_line(function, *arguments):
    """The message with which a stage ends."""
    with pytest.raises(UserError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def judge(folders):
    gate.main(folders[1] / "comparison.json")


def test_the_same_run_passes(folders):
    row = one_row(folders)
    assert (row["verdict"], row["accuracy_verdict"], row["speed_verdict"]) == ("PASS",) * 3
    assert row["reasons"] == row["changed"] == []
    assert (row["wer"], row["wer_difference"], row["differing_transcripts"]) == (0, 0, 0)
    assert (row["p_better"], row["p_worse"], row["speed_ratio"]) == (0, 0, 1)
    assert row["speed_ratio_low"] < 1 < row["speed_ratio_high"]
    assert compare.summary([row]) == ("PASS", [])


WORSE = {f"u{n}": "WORD" for n in range(10)}  # 20 of 60 words, 10 of 20 utterances


def test_worse_transcripts_fail_and_better_ones_do_not(folders):
    write_row(folders[1], hypotheses=WORSE)
    row = one_row(folders)
    assert (row["verdict"], row["accuracy_verdict"], row["speed_verdict"]) == (
        "FAIL",
        "FAIL",
        "PASS",
    )
    assert row["wer_baseline"] == 0 and row["wer"] == row["wer_difference"] == pytest.approx(
        100 / 3
    )
    letters = [len(text.replace(" ", "")) for text in REFERENCES.values()]
    assert row["cer"] == row["cer_difference"] == pytest.approx(100 * 70 / sum(letters))
    assert row["p_worse"] > 0.95 and row["p_better"] == 0 and row["differing_transcripts"] == 10
    assert row["reasons"] == ["WER higher by 33.333 points"]
    assert compare.summary([row])[1] == [f"{ROW}: FAIL: WER higher by 33.333 points"]
    assert one_row(folders, max_wer_increase=33.4)["verdict"] == "PASS"
    better = one_row(folders[::-1])
    assert better["verdict"] == "PASS" and better["wer_difference"] == pytest.approx(-100 / 3)
    assert better["p_better"] == row["p_worse"] and better["p_worse"] == row["p_better"]


def test_a_worse_wer_that_may_be_chance_passes(folders):
    """One utterance in twenty is in 64 % of the draws: enough for a confidence of 0.6."""
    write_row(folders[1], hypotheses={"u3": "WORD NUMBER"})
    row = one_row(folders)
    assert row["wer_difference"] > 0 and row["differing_transcripts"] == 1
    assert row["p_worse"] == pytest.approx(1 - 0.95**20, abs=0.05)
    assert row["verdict"] == "PASS"
    assert one_row(folders, confidence=0.6)["verdict"] == "FAIL"


def test_the_order_of_utterances_does_not_matter(folders):
    few = {"u3": "WORD"}  # in 64 % of the draws
    write_row(folders[1], hypotheses=few)
    row = one_row(folders)
    write_row(folders[1], references=dict(reversed(REFERENCES.items())), hypotheses=few)
    assert one_row(folders) == row
    assert 0 < row["p_worse"] < 1 and row["differing_transcripts"] == 1


@pytest.mark.parametrize(
    ("offline", "verdict"),
    [
        ({"utterances_per_s": 100.0}, "PASS"),
        ({"utterances_per_s": 9.5}, "PASS"),  # within what may drift
        ({"utterances_per_s": 8.0}, "FAIL"),
        ({"utterances_per_s": 8.0, "spread": 1.0}, "PASS"),  # may be chance: up to 0.98
        ({"utterances_per_s": 8.0, "spread": 0.5}, "FAIL"),  # up to 0.89
        ({"utterances_per_s": 8.0, "batches": 2}, "PASS"),  # up to 1.2, with few degrees of freedom
        ({"utterances_per_s": 8.95, "spread": 0.0}, "PASS"),  # up to 0.904
    ],
)
def test_speed(folders, offline, verdict):
    write_row(folders[1], **offline)
    row = one_row(folders)
    assert row["speed_ratio"] == offline["utterances_per_s"] / 10
    assert row["verdict"] == row["speed_verdict"] == verdict
    assert row["accuracy_verdict"] == "PASS"
    limit = 0.9
    assert (row["speed_ratio_high"] < limit) == (verdict == "FAIL")
    slower = f"slower by at least {1 - row['speed_ratio_high']:.1%}"
    assert row["reasons"] == ([slower] if verdict == "FAIL" else [])


def test_the_limit_of_slowness(folders):
    write_row(folders[1], utterances_per_s=8.0)
    assert one_row(folders, max_slowdown=0.25)["verdict"] == "PASS"
    write_row(folders[1], utterances_per_s=9.7)
    assert one_row(folders, max_slowdown=0)["verdict"] == "FAIL"
    assert one_row(folders, max_slowdown=0, confidence=0.99999)["verdict"] == "PASS"


def test_both_failures_are_told(folders):
    write_row(folders[1], hypotheses=WORSE, utterances_per_s=1.0)
    row = one_row(folders)
    assert row["verdict"] == row["accuracy_verdict"] == row["speed_verdict"] == "FAIL"
    assert [reason.split()[0] for reason in row["reasons"]] == ["WER", "slower"]


def test_the_interval_is_welchs():
    """Against the textbook's formula, and limits that it has to have."""
    low, high = difference.interval(2.0, (0.1, 0.3), (10, 40), 0.95)
    a, b = 0.1**2 / 10, 0.3**2 / 40
    freedom = (a + b) ** 2 / (a**2 / 9 + b**2 / 39)
    assert freedom == pytest.approx(43.8, abs=0.1)
    half = 2.0154 * (a + b) ** 0.5  # Student's quantile from a table, 44 degrees of freedom
    assert np.log([low / 2, high / 2]) == pytest.approx([-half, half], rel=1e-3)
    # One run without spread: the other's degrees of freedom alone. 12.706 is that of one.
    low, high = difference.interval(1.0, (0.0, 0.02), (500, 2), 0.95)
    assert np.log(high) == pytest.approx(12.706 * 0.02 / 2**0.5, rel=1e-4)
    assert difference.interval(1.5, (0.0, 0.0), (2, 3), 0.95) == (1.5, 1.5)
    assert difference.interval(1.5, (0.0, 0.1), (1, 30), 0.95) is None
    assert difference.interval(1.5, (0.1, 0.0), (30, 1), 0.95) is None
    assert np.isfinite(difference.interval(1e21, (1e6, 1e6), (2, 2), 0.9999)).all()


@pytest.mark.parametrize("batches", [(5, 5), (4, 60), (100, 100)])
def test_the_interval_covers_the_truth_as_often_as_it_says(batches):
    """Runs of batches with random times: the true ratio lies inside 95 % of the intervals."""
    random = np.random.default_rng(1)
    true = 1 / 1.25  # our batches take longer, and vary otherwise
    inside, rounds = 0, 1500
    for _ in range(rounds):
        times = [random.normal(1, 0.1, batches[0]), random.normal(1.25, 0.05, batches[1])]
        spreads = [t.std(ddof=1) / t.mean() for t in times]
        low, high = difference.interval(times[0].mean() / times[1].mean(), spreads, batches, 0.95)
        inside += low < true < high
    assert inside / rounds == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"offline.verdict": "INVALID"}, "{} is INVALID"),
        ({"offline.verdict": "FAKE"}, "{} is FAKE"),
        ({"environment.cpu": "B"}, "other CPU: "),
        ({"environment.threads": 4}, "other threads: "),
        ({"configuration.engine.device": "npu"}, "other device: "),
        ({"offline.batches": 1, "offline.spread": 0.0}, "a single batch has no spread"),
        ({"offline.batches": 1}, "a single batch has no spread"),
    ],
)
@pytest.mark.parametrize("side", [0, 1])
def test_speeds_that_cannot_be_compared_are_unclear(folders, change, reason, side):
    """Even where they look much worse; accuracy is judged all the same."""
    write_row(folders[side], change=change, utterances_per_s=100.0 if side == 0 else 1.0)
    row = one_row(folders)
    assert row["verdict"] == row["speed_verdict"] == "UNCLEAR" and row["accuracy_verdict"] == "PASS"
    (found,) = row["reasons"]
    assert found.startswith(reason.format(("baseline", "this run")[side]))
    assert row["speed_ratio"] is not None
    assert (row["speed_ratio_low"] is None) == ("offline.batches" in change)
    write_row(folders[1], hypotheses=WORSE)
    assert one_row(folders)["verdict"] == "FAIL"


def test_reasons_name_both_sides(folders):
    change = {"environment.cpu": "Other", "environment.threads": 64}
    write_row(folders[1], change=change)
    reasons = ["other CPU: A CPU against Other", "other threads: 2 against 64"]
    assert one_row(folders)["reasons"] == reasons


def test_quick_runs_are_compared_and_say_so(folders):
    write_row(folders[0], verdict="QUICK")
    row = one_row(folders)
    assert row["verdict"] == "PASS" and row["reasons"] == ["baseline is QUICK"]
    write_row(folders[1], verdict="QUICK", utterances_per_s=1.0)
    row = one_row(folders)
    assert row["verdict"] == "FAIL"
    assert row["reasons"][1:] == ["baseline is QUICK", "this run is QUICK"]


def test_what_changed_is_named_and_decides_nothing(folders):
    names = ("checkpoint", "dataset", "timing_code", "accuracy_code", "features")
    change = {f"hashes.{name}": "1" for name in names}
    engine = {"backend": "torchscript", "device": "cpu", "padding": "batch", "form": "packed"}
    change["configuration.engine"] = engine
    change["environment.versions"] = {"torch": "2.0.1"}
    write_row(folders[0], change=change)
    row = one_row(folders)
    assert row["verdict"] == "PASS"
    assert row["changed"] == [
        "checkpoint", "dataset", "timing code", "accuracy code",
        "engine settings (form, padding)", "versions (torch)",
    ]  # fmt: skip


def test_random_weights_are_compared_by_speed_alone(folders, tmp_path):
    """Their transcripts mean nothing: no WER, no failure of accuracy, and the reason says so."""
    random = {"configuration.model": {"random": {"seed": 1}}}
    reason = "random weights: no accuracy"
    write_row(folders[1], hypotheses=WORSE, change=random)
    row = one_row(folders)
    assert (row["verdict"], row["accuracy_verdict"], row["speed_verdict"]) == ("PASS",) * 3
    assert row["wer"] is row["wer_baseline"] is row["cer"] is row["p_worse"] is None
    assert row["differing_transcripts"] == 10 and row["reasons"] == [reason]
    build(folders)
    with open(folders[1] / "comparison.tsv", newline="") as file:
        (found,) = csv.DictReader(file, delimiter="\t")
    assert found["wer"] == found["wer_difference"] == "" and found["reasons"] == reason
    judge(folders)
    write_row(folders[0], change=random)
    write_row(folders[1], change=random, utterances_per_s=1.0)
    row = one_row(folders)
    assert row["verdict"] == "FAIL" and row["reasons"][0] == reason
    build(folders)
    assert f"{ROW}: FAIL: {reason}, slower by " in fails_in_one_line(judge, folders)


def test_rows_that_only_one_of_the_two_has(folders):
    write_row(folders[0], "d/m/e/bs16/greedy")
    write_row(folders[0], "d/m/e/bs4/greedy")
    write_row(folders[0], "d/m/other/bs2/greedy")  # not of the selection
    (folders[0] / "d/m/e/bs3/greedy").mkdir(parents=True)  # without a record
    write_row(folders[1], OTHER_ROW)
    rows = all_rows(folders, ROW, OTHER_ROW)
    assert [(r["batch_size"], r["verdict"], r["reasons"]) for r in rows] == [
        (1, "PASS", []),
        (2, "MISSING", ["not in the baseline"]),
        (4, "MISSING", ["only in the baseline"]),
        (16, "MISSING", ["only in the baseline"]),
    ]
    verdict, reasons = compare.summary(rows)
    assert verdict == "FAIL" and reasons[0] == "d/m/e/bs2/greedy: MISSING: not in the baseline"
    assert len(reasons) == 3 and rows[1]["wer"] is None


def test_other_utterances_cannot_be_compared(folders):
    write_row(folders[0], OTHER_ROW)
    few = {"u1": REFERENCES["u1"], "new": "OTHER"}
    write_row(folders[1], OTHER_ROW, references=few, utterances_per_s=0.1)
    row = all_rows(folders, ROW, OTHER_ROW)[1]
    assert row["verdict"] == "INCOMPARABLE"
    assert row["reasons"] == ["other utterances: 20 against 2, 1 in common"]
    assert row["wer"] is row["speed_ratio"] is row["speed_verdict"] is None
    write_row(folders[1], OTHER_ROW, references={**REFERENCES, "u1": "OTHER"})
    row = all_rows(folders, ROW, OTHER_ROW)[1]
    assert row["reasons"] == ["other references: 1 of 20 differ"]
    for folder in folders:
        write_row(folder, OTHER_ROW, references={"u1": " "})
    row = all_rows(folders, ROW, OTHER_ROW)[1]
    assert (row["verdict"], row["reasons"]) == ("INCOMPARABLE", ["the references hold no words"])


def test_folders_with_nothing_to_compare_are_refused(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, words in (
        ("empty", "not a folder of results"),
        ("file", "no such folder"),
        ("absent", "no such folder"),
        ("results", "is the folder of these results"),
    ):
        text = fails_in_one_line(build, (tmp_path / name, folders[1]))
        assert text.startswith(f"{tmp_path / name}: ") and words in text and "give " in text
    shutil.rmtree(folders[0])
    write_row(folders[0], "d/m/e/bs8/greedy")
    text = fails_in_one_line(build, folders)
    assert "holds other results, give " in text and f"({ROW}: not in the baseline)" in text
    write_row(folders[0], references={"v": "OTHER"})
    text = fails_in_one_line(build, folders)
    assert text.endswith(f"({ROW}: other utterances: 1 against 20, 0 in common)")
    assert not list(folders[1].glob("comparison*"))


def test_one_utterance_empty_hypotheses_and_any_ids(tmp_path):
    folders = tmp_path / "the baseline", tmp_path / "results"
    references = {"größe/ü 中": "ÄÖ Ü"}
    write_row(folders[0], references=references)
    write_row(folders[1], references=references, hypotheses=dict.fromkeys(references, ""))
    row = one_row(folders)
    assert (row["wer"], row["cer"], row["p_worse"], row["verdict"]) == (100, 100, 1, "FAIL")
    write_row(folders[0], references=references, hypotheses=dict.fromkeys(references, ""))
    assert one_row(folders)["verdict"] == "PASS" and one_row(folders)["wer_baseline"] == 100


def test_tables_and_gate(folders):
    rows = (ROW, OTHER_ROW)
    for folder in folders:
        write_row(folder, OTHER_ROW, change={"offline.verdict": "INVALID"}, batches=1)
    write_row(folders[1], hypotheses=WORSE)
    build(folders, rows=rows)  # the gate is what fails
    with open(folders[1] / "comparison.tsv", newline="") as file:
        found = list(csv.DictReader(file, delimiter="\t"))
    assert list(found[0]) == NAMES
    assert [row["verdict"] for row in found] == ["FAIL", "UNCLEAR"]
    assert found[0]["wer"] == "33.333" and found[0]["differing_transcripts"] == "10"
    assert found[0]["speed_ratio"] == "1.000" and found[0]["utterances_per_s"] == "10.000"
    assert found[1]["speed_ratio_low"] == found[1]["speed_ratio_high"] == ""
    assert found[1]["reasons"].startswith("baseline is INVALID; this run is INVALID; a single")
    data = json.loads((folders[1] / "comparison.json").read_text())
    assert data["verdict"] == "FAIL" and len(data["rows"]) == len(data["reasons"]) == 2
    assert data["limits"] == {"confidence": 0.95, "max_wer_increase": 0.0, "max_slowdown": 0.1}
    text = (folders[1] / "comparison.md").read_text()
    assert text.startswith("# Comparison with ") and text.splitlines()[0].endswith(": FAIL")
    assert "33.333" in text and "10 %" in text and "drifts" in text
    text = fails_in_one_line(judge, folders)
    assert f"2 of 2 rows do not pass: {ROW}: FAIL: WER higher by 33.333 points; " in text
    assert "; d/m/e/bs2/greedy: UNCLEAR: baseline is INVALID, " in text
    build(folders, max_wer_increase=40)
    assert f"1 of 2 rows do not pass: {OTHER_ROW}: MISSING: " in fails_in_one_line(judge, folders)
    shutil.rmtree(folders[0] / OTHER_ROW)
    build(folders, max_wer_increase=40)
    judge(folders)
    assert (folders[1] / "comparison.md").read_text().splitlines()[0].endswith(": PASS")


def test_the_gate_as_a_program(folders):
    build(folders)
    program = ("report.gate", "--comparison", folders[1] / "comparison.json")
    result = run_stage(*program)
    assert (result.returncode, result.stderr) == (0, "all 1 rows pass\n")
    write_row(folders[1], hypotheses=WORSE)
    build(folders)
    result = run_stage(*program)
    assert result.returncode == 1
    assert_one_line_error(result, "comparison.json: 1 of 1 rows do not pass", f"{ROW}: FAIL: WER")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"verdict": "PASS", "reasons": 1, "rows": []}'])
def test_the_gate_refuses_what_is_no_comparison(tmp_path, text):
    (tmp_path / "comparison.json").write_text(text)
    assert "comparison.json: " in fails_in_one_line(judge, (None, tmp_path))


def test_without_a_baseline_the_stage_says_what_to_add(folders):
    result = run_stage("report.compare", *options(folders, None))
    assert_one_line_error(result, "add --config baseline=FOLDER")


def options(folders, baseline):
    """The command line of the stage, as the workflow makes it."""
    limits = Limits(0.9, 40.0, 0.25)._asdict().items()
    return [
        "--records", folders[1] / ROW / "record.json", f"--baseline={baseline or ''}",
        *(f"--{name.replace('_', '-')}={value}" for name, value in limits),
        *(f"--{kind}={folders[1] / 'comparison'}.{kind}" for kind in ("tsv", "md", "json")),
    ]  # fmt: skip


def test_limits_are_taken_from_the_command_line(folders):
    write_row(folders[1], hypotheses=WORSE, utterances_per_s=8.0)
    result = run_stage("report.compare", *options(folders, folders[0]))
    assert (result.returncode, result.stderr) == (0, "PASS: 1 of 1 rows pass\n")
    data = json.loads((folders[1] / "comparison.json").read_text())
    assert data["limits"] == {"confidence": 0.9, "max_wer_increase": 40, "max_slowdown": 0.25}


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("confidence", 1),
        ("confidence", float("nan")),
        ("max_slowdown", -1),
        ("max_wer_increase", float("inf")),
    ],
)
def test_limits_that_cannot_be(folders, limit, value):
    text = fails_in_one_line(lambda: build(folders, **{limit: value}))
    assert f"--{limit.replace('_', '-')}" in text


def test_text_from_records_never_becomes_markup(folders):
    """Nor does it break the table, reach the terminal as a command, or stop the writing."""
    hostile = {"checkpoint": EVIL, "environment.cpu": EVIL, "configuration.engine.device": EVIL}
    hostile.update({f"hashes.{name}": EVIL for name in ("checkpoint", "dataset")})
    hostile["environment.versions"] = {EVIL: "1"}
    write_row(folders[0], change=hostile)
    build(folders)
    text = (folders[1] / "comparison.md").read_text()
    assert "alert(1)" in text and "<script" not in text and "[a](b)" not in text
    lines = text.splitlines()
    columns = lines[2].count("|")
    assert lines[4].replace("\\|", "").count("|") == columns and lines[5] == ""
    with open(folders[1] / "comparison.tsv", newline="") as file:
        (row,) = csv.DictReader(file, delimiter="\t")
    assert None not in row and row["verdict"] == "UNCLEAR"
    assert "versions (<script>" in row["changed"] and row["reasons"].count("alert(1)") == 2
    for name in ("comparison.tsv", "comparison.md", "comparison.json"):
        assert "\x1b" not in (folders[1] / name).read_text().replace("\\u001b", "\x1b")
    text = fails_in_one_line(judge, folders)
    assert "UNCLEAR" in text and "alert(1)" in text and "\x1b" not in text


MALFORMED = [
    ({"offline": None}, "offline.verdict"),
    ({"offline": [1]}, "offline.verdict"),
    ({"offline.verdict": "FINE"}, "offline.verdict"),
    ({"offline.verdict": {}}, "offline.verdict"),
    ({"offline.utterances_per_s": 0}, "offline.utterances_per_s"),
    ({"offline.utterances_per_s": "fast"}, "offline.utterances_per_s"),
    ({"offline.utterances_per_s": float("nan")}, "broken JSON"),
    ({"offline.utterances_per_s": 10**400}, "offline.utterances_per_s"),
    ({"offline.spread": -0.1}, "offline.spread"),
    ({"offline.spread": float("inf")}, "broken JSON"),
    ({"offline.spread": None}, "offline.spread"),
    ({"offline.batches": 2.5}, "offline.batches"),
    ({"offline.batches": True}, "offline.batches"),
    ({"offline.batches": 0}, "offline.batches"),
    ({"environment": "x"}, "environment.cpu"),
    ({"environment.cpu": ["x"]}, "environment.cpu"),
    ({"environment.threads": "2"}, "environment.threads"),
    ({"environment.versions": "2.13"}, "environment.versions"),
    ({"configuration": None}, "configuration.engine"),
    ({"configuration.engine": "cpu"}, "configuration.engine"),
    ({"configuration.engine.device": 1}, "configuration.engine.device"),
    ({"hashes": []}, "hashes."),
    ({"hashes.checkpoint": None}, "hashes.checkpoint"),
    ({"hashes.transcripts": 1}, "hashes.transcripts"),
    ({"hashes.transcripts": "0" * 64}, "transcripts.jsonl: missing, or altered"),
    ({"format": 0}, "not the record of"),
    ({"row": OTHER_ROW}, "not the record of"),
    ({"row": None}, "not the record of"),
    ({"format": None}, "not the record of"),
]


@pytest.mark.parametrize(("change", "words"), MALFORMED)
@pytest.mark.parametrize("side", [0, 1])
def test_malformed_records_are_one_line(folders, change, words, side):
    write_row(folders[side], change=change)
    text = fails_in_one_line(one_row, folders)
    assert text.startswith(str(folders[side] / ROW)) and words in text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("record.json", b"{"),
        ("record.json", b"[]"),
        ("record.json", b"\xff"),
        ("record.json", b'{"format": 2' + b"0" * 5000 + b"}"),
        ("record.json", b"[" * 100000),
        ("transcripts.jsonl", None),
        ("transcripts.jsonl", b""),
        ("transcripts.jsonl", b'{"id": "u1"}\n'),
        ("transcripts.jsonl", b"\xff"),
    ],
)
def test_broken_files_of_the_baseline_are_one_line(folders, name, content):
    path = folders[0] / ROW / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    if name == "transcripts.jsonl" and content is not None:
        record = read_sealed(folders[0] / ROW / "record.json")
        record["hashes"]["transcripts"] = sha256(path)
        write_sealed(folders[0] / ROW / "record.json", record)
    assert fails_in_one_line(one_row, folders).startswith(str(path))
