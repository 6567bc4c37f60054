"""Submissions side by side, and rows in words."""

import copy

from deepspeech2.report import board, sentences
from helpers import row_content


def record(**changes):
    """What boards and sentences read of a record; keys with dots are changed."""
    found = {
        "dataset": "own", "model": "tiny", "engine": "plain", "batch_size": 4, "decoder": "greedy",
        "configuration": {"engine": {"backend": "native"}, "decoder": {"kind": "greedy"},
                          "model": {}},
        "environment": {"cpu": "A CPU", "cores": 4, "versions": {}},
        "hashes": {"dataset": "d", "checkpoint": "c", "timing_code": "t"},
        "offline": {"verdict": "VALID", "utterances_per_s": 36.4, "seconds": 12.34},
        "agreement": {"identical_transcripts": 128, "utterances": 130},
        "accuracy": {"wer": {"percent": 5.82, "low": 3.8, "high": 7.8}, "code_sha256": "s"},
    }  # fmt: skip
    for key, value in changes.items():
        *places, last = key.split("__")
        content = found
        for place in places:
            content = content[place]
        content[last] = value
    return copy.deepcopy(found)


def test_the_record_has_what_is_read_of_it():
    assert {"percent", "low", "high"} <= row_content()["score.json"]["wer"].keys()


def test_what_does_not_compare_is_marked():
    records = [
        record(),
        record(engine="other", offline__verdict="QUICK"),
        record(hashes__dataset="e"),
        record(hashes__checkpoint="e", accuracy__code_sha256="e"),
        record(hashes__timing_code="e"),
        # Of another backend the code is another, and of another dataset the data.
        record(hashes__timing_code="e", configuration__engine={"backend": "openvino"}),
        record(hashes__dataset="e", dataset="theirs"),
    ]
    assert board.marked(records, [True] * 6 + [False]) == [
        [], ["QUICK"], ["other data"], ["another checkpoint", "other scoring code"],
        ["other timing code"], [], ["its submission does not hold"],
    ]  # fmt: skip


def test_servers_compare_under_one_rule():
    rule = {"latency_ms": 500.0, "max_batch": 8, "percentile": 99.0}
    rates = {"utterances_per_s": 20.0, "audio_seconds": 2.0, "verdict": "VALID", "rule": rule}
    one = {**rates, "code_sha256": "a"}
    records = [
        record(),
        record(server=one),
        record(server={**one, "verdict": "QUICK", "rule": {**rule, "latency_ms": 900.0}}),
        record(server={**one, "code_sha256": "b"}),
        record(server={**one, "code_sha256": "b"}, configuration__engine={"backend": "openvino"}),
        record(),
    ]
    assert board.marked(records, [True] * 6) == [
        [], [], ["another server rule", "server QUICK"], ["other server code"], [], [],
    ]  # fmt: skip
    (text,) = sentences.of_rows([records[1]])
    assert "answers 99 % of 20 utterances/s within 500 ms, 40 people who speak" in text
    none = {**one, "utterances_per_s": None}
    (text,) = sentences.of_rows([record(server=none)])
    assert "no rate of arrivals of which it answers 99 % within 500 ms" in text


def test_sentences_are_what_a_person_would_say():
    rows = [
        record(),
        record(engine="native-int8", offline__utterances_per_s=186.0),
        record(engine="lossy", offline__utterances_per_s=186.0, accuracy__wer={
            "percent": 6.1, "low": None, "high": None}, offline__verdict="INVALID"),
        record(engine="elsewhere", environment__cpu="Another"),
        record(engine="none", configuration__model={"random": True}),
        record(batch_size=8, decoder="beam", configuration__decoder={"kind": "beam"},
               accuracy__wer={"percent": None, "low": None, "high": None}),
    ]  # fmt: skip
    same = "128 of 130 transcripts as the plain network's"
    assert sentences.of_rows(rows) == [
        "plain on own with tiny at batch size 4: 36.4 utterances/s, a WER of 5.8 %, 3.8 to 7.8, "
        f"{same}; measured by the rules for 12.3 s.",
        "native-int8 on own with tiny at batch size 4: 5.1 times as fast as plain (186 "
        f"utterances/s), at the same WER (5.8 %, 3.8 to 7.8), {same}; measured by the rules for "
        "12.3 s.",
        "lossy on own with tiny at batch size 4: 5.1 times as fast as plain (186 utterances/s), at "
        f"a WER of 6.1 %, where that has 5.8 %, {same}; measured under conditions that do not "
        "count, for 12.3 s.",
        "elsewhere on own with tiny at batch size 4: 36.4 utterances/s, at the same WER (5.8 %, "
        f"3.8 to 7.8), {same}; measured by the rules for 12.3 s.",
        "none on own with tiny at batch size 4: 1 times as fast as plain (36.4 utterances/s), "
        f"{same}; measured by the rules for 12.3 s.",
        "plain with the decoder beam on own with tiny at batch size 8: 36.4 utterances/s, no word "
        f"to score, {same}; measured by the rules for 12.3 s.",
    ]
