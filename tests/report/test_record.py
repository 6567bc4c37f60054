"""The record of a row: everything that produced its figures, and the figures."""

import json

import pytest
from deepspeech2.cli import UserError
from deepspeech2.files import SEAL, read_sealed, seal
from deepspeech2.report import FORMAT, record
from deepspeech2.report.rows import read_record
from helpers import ROW_FILES, assert_one_line_error, row_content, run_stage, write_row

ROW = "an4/m/cpu fp32/bs16/greedy"
CONFIGURATION = {
    "dataset": {"layout": "an4", "split": "test"},
    "model": {"checkpoint": "a.ckpt", "sha256": None},
    "accuracy": {"threads": 1},
    "timing": {"multi": None, "governors": ["performance"]},
}
GIVEN = json.dumps(CONFIGURATION)


OPTIONS = (
    "--score", "--agreement", "--timing", "--posteriors-index", "--transcripts-index",
    "--decoding-time", "--corpus-index", "--features-index", "--single-stream",
)  # fmt: skip


def build(results, row=ROW, configuration=GIVEN, stream=None):
    paths = [results / row / name for name in ROW_FILES]
    paths[-1] = stream or paths[-1]
    return run_stage(
        "report.record", "--row", row, "--configuration", configuration,
        *(argument for pair in zip(OPTIONS, paths) for argument in pair),
        "--record", results / "made.json",
    )  # fmt: skip


def test_a_record_has_everything_of_its_row(tmp_path):
    timing = row_content()["timing.json"]
    environment = timing["environment"]
    changes = {"utterances_per_s": 3.5, "batch_ms": [1.5]}
    about = {"environment": {**environment, "threads": 1}, "versions": {"torch": "2.9.0"}}
    utterances = [{"split": "test", "notes": ["clipped"]}, {"split": "test"}, {"split": "train"}]
    corpus = {"passed_over": {"other": 3, "no_text": 2}, "utterances": utterances}
    write_row(tmp_path, ROW, single_stream={**changes, **about}, corpus=corpus)
    result = build(tmp_path)
    assert result.returncode == 0, result.stderr
    found = read_sealed(tmp_path / "made.json")
    given = row_content()
    figures = (
        "verdict reasons disturbed scenario batches utterances seconds utterances_per_s rtfx "
        "end_to_end_utterances_per_s latency_ms end_to_end_latency_ms batch_ms spread "
        "end_to_end_batch_ms phase_seconds padding_share padding_shares fill_up_rows proof "
        "load_before other_load governor throttled_seconds "
        "compile_seconds artefact_bytes peak_memory_bytes peak_device_memory_bytes started ended"
    ).split()
    offline = {name: timing[name] for name in figures}
    stream = {**offline, "scenario": "single_stream", **changes}
    assert {name: found["single_stream"][name] for name in figures} == stream
    assert {name: found["offline"][name] for name in figures} == offline
    # The single stream is measured once for all batch sizes, maybe not with this row's threads.
    assert found["single_stream"]["environment"] == {
        **environment, "threads": 1, "versions": {"torch": "2.9.0"}
    }  # fmt: skip
    assert found.pop("offline") and found.pop("single_stream")
    assert found == {
        "format": FORMAT,
        "row": ROW,
        "dataset": "an4",
        "model": "m",
        "engine": "cpu fp32",
        "batch_size": 16,
        "decoder": "greedy",
        "configuration": {
            **CONFIGURATION,
            "engine": {"backend": "torchscript", "options": {}},
            "decoder": given["transcripts.json"]["decoder"]
            | {"language_model": None, "tuning": None},
        },
        "environment": {
            "node": "here",
            "cpu": "A CPU",
            "device": "cpu",
            "mhz": {"least": 3000, "most": 3000, "limit": 3000, "devices": None},
            "cores": 4,
            "threads": 2,
            "memory_bytes": 8 << 30,
            "system": "Linux",
            "python": "3.11.7",
            "governor": "performance",
            "outside": {},
            "libraries": {"numpy": "2.3.4"},
            "git_revision": "f" * 40 + "+changes",
            "driver": None,
            "versions": {"torch": "2.13.0"},
        },
        "accuracy_environment": {
            "threads": 1,
            "versions": {"torch": "2.13.0"},
            "outside": {},
            "node": "n1",
            "cpu": "CPU",
            "device": "cpu",
            "eager_versions": {"torch": "2.13.0"},
            "features_versions": {"numpy": "2.4.6"},
        },
        "hashes": {
            "checkpoint": "0123456789abcdef" * 4,
            "dataset": "2" * 64,
            "transcripts": "3" * 64,
            "timing_code": "4" * 64,
            "accuracy_code": "5" * 64,
            "features": "6" * 64,
        },
        "checkpoint": "a.ckpt",
        "parameters": 5580832,
        "manifest": "an4_test_manifest.json",
        "corpus": {
            "layout": "folder",
            "split": "test",
            "utterances": 2,
            "skipped": {"no_text": 2},
            "other_files": 3,
            "notes": {"clipped": 1},
            "dropped": {},
        },
        "accuracy": given["score.json"],
        "agreement": {k: v for k, v in given["agreement.json"].items() if k != "eager_versions"},
        "decoding": given["decoding_time.json"],
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "record.json: line 1: broken JSON"),
        ("[]", "record.json: not the record of d/m/e/bs1/"),
        ("null", "record.json: not the record of d/m/e/bs1/"),
        (f'{{"format": {FORMAT}}}', "record.json: not the record of d/m/e/bs1/"),
        (
            '{"format": 0, "row": "d/m/e/bs1/greedy"}',
            "record.json: not the record of d/m/e/bs1/",
        ),
        ('{"row": "d/m/e/bs1/greedy"}', "record.json: not the record of d/m/e/bs1/"),
        (
            f'{{"format": {FORMAT}, "row": "d/m/e/bs2/greedy"}}',
            "not the record of d/m/e/bs1/",
        ),
        (None, "record.json: no such file"),
    ],
)
def test_what_is_no_record_of_the_row_is_refused(tmp_path, content, words):
    (tmp_path / "d/m/e/bs1/greedy").mkdir(parents=True)
    if content is not None:
        (tmp_path / "d/m/e/bs1/greedy/record.json").write_text(content)
    with pytest.raises(UserError) as error:
        read_record(tmp_path / "d/m/e/bs1/greedy/record.json")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_record_is_read_as_it_was_written(tmp_path):
    path = write_row(tmp_path, "d/m/e/bs8/greedy")
    found = read_record(path)
    assert {**found, SEAL: seal(found)} == json.loads(path.read_text())
    assert found["batch_size"] == 8


def test_missing_or_broken_files_are_named(tmp_path):
    write_row(tmp_path, ROW)
    files = [tmp_path / ROW / name for name in ROW_FILES]
    for name in ("score.json", "agreement.json", "timing.json", "posteriors.json", "corpus.json"):
        path = tmp_path / ROW / name
        content = path.read_text()
        for damage in (None, "{"):
            path.unlink() if damage is None else path.write_text(damage)
            with pytest.raises(UserError, match=name):
                record.main(*files, ROW, {}, tmp_path / "made.json")
        path.write_text(content)
    assert_one_line_error(build(tmp_path, stream=tmp_path / "absent.json"), "absent.json")
    assert_one_line_error(build(tmp_path, configuration="{"), "--configuration", "broken JSON")
    assert not (tmp_path / "made.json").exists()
