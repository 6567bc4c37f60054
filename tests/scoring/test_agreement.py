"""Agreement of an engine's run with the eager reference: transcripts and posteriors."""

import numpy as np
import pytest
from deepspeech2.cli import UserError
from deepspeech2.files import read_sealed
from deepspeech2.model import posteriors as posteriors_file
from deepspeech2.scoring import agreement
from deepspeech2.scoring.decoders.greedy import Decoder as Greedy
from helpers import LABELS, assert_one_line_error, posteriors_of, run_stage, write_transcripts


def test_agreement_of_transcripts():
    eager = {f"u{n}": {"reference": "A B", "hypothesis": "A"} for n in range(14)}
    ours = {name: dict(entry) for name, entry in eager.items()}
    assert agreement.transcripts_agree(ours, eager) == {
        "utterances": 14, "identical_transcripts": 14, "first_differing": []
    }  # fmt: skip
    for n in range(2, 14):
        ours[f"u{n}"]["hypothesis"] = f"B {n}"
    found = agreement.transcripts_agree(ours, eager)
    assert found["utterances"] == 14 and found["identical_transcripts"] == 2
    assert found["first_differing"] == [
        {"id": f"u{n}", "reference": "A B", "hypothesis": f"B {n}", "eager": "A"}
        for n in range(2, 12)
    ]
    spaces = {name: {**entry, "hypothesis": "A "} for name, entry in eager.items()}
    assert agreement.transcripts_agree(spaces, eager)["identical_transcripts"] == 0
    for other in ({}, {"u0": eager["u0"]}, {**eager, "u0": {"reference": "A", "hypothesis": "A"}}):
        with pytest.raises(UserError, match="not of the same utterances"):
            agreement.transcripts_agree(other, eager)


def test_agreement_of_posteriors():
    eager = {"a": posteriors_of("AB_"), "b": posteriors_of("CD")}
    none = {"largest_posterior_difference": 0.0, "largest_posterior_difference_in": None}
    assert agreement.posteriors_agree(eager.items(), eager.items(), "i.json") == {
        **none, "other_lengths": 0
    }  # fmt: skip
    ours = {name: rows.copy() for name, rows in eager.items()}
    ours["a"][1, 5] += 0.25
    ours["b"][0, 0] -= 0.5  # more, and in the other direction
    assert agreement.posteriors_agree(ours.items(), eager.items(), "i.json") == {
        "largest_posterior_difference": 0.5,
        "largest_posterior_difference_in": "b",
        "other_lengths": 0,
    }
    # Other lengths: the frames in common are compared.
    for rows in (eager["b"][:1], np.concatenate([eager["b"], posteriors_of("Z")]), eager["b"][:0]):
        assert agreement.posteriors_agree({"b": rows}.items(), list(eager.items())[1:], "i") == {
            **none, "other_lengths": 1
        }  # fmt: skip


@pytest.mark.parametrize(
    "other",
    [
        {"b": posteriors_of("CD"), "a": posteriors_of("AB")},
        {"a": posteriors_of("AB"), "c": posteriors_of("CD")},
        {"a": posteriors_of("AB"), "b": posteriors_of("CD", LABELS[:-1])},
        {"a": posteriors_of("AB")},
        {"a": posteriors_of("AB"), "b": posteriors_of("CD"), "c": posteriors_of("E")},
    ],
)
def test_posteriors_of_other_utterances_are_refused(other):
    eager = {"a": posteriors_of("AB"), "b": posteriors_of("CD")}
    with pytest.raises(UserError, match=r"i.json.*not the eager run's; rebuild it with.*i.json"):
        agreement.posteriors_agree(other.items(), eager.items(), "i.json")


def test_agreement_stage(tmp_path):
    eager = {"yes": posteriors_of("Y_ES"), "go": posteriors_of("GO")}
    ours = {"yes": posteriors_of("Y_EE"), "go": eager["go"]}
    arguments, greedy = [], Greedy(LABELS)
    for kind, given in (("", ours), ("eager-", eager)):
        texts = {
            name: {"reference": name, "hypothesis": greedy(rows).text}
            for name, rows in given.items()
        }
        paths = tmp_path / f"{kind}p.bin", tmp_path / f"{kind}p.json"
        posteriors_file.write(*paths, iter(given.items()), {"versions": {"torch": f"2{kind}"}})
        lines = write_transcripts(tmp_path / f"{kind}t.jsonl", texts)
        arguments += [f"--{kind}transcripts-index", lines.with_suffix(".json")]
        arguments += [f"--{kind}transcripts", lines, f"--{kind}posteriors", paths[0]]
        arguments += [f"--{kind}posteriors-index", paths[1]]
    arguments += ["--agreement", tmp_path / "agreement.json"]
    result = run_stage("scoring.agreement", *arguments)
    assert result.returncode == 0 and result.stderr == "identical transcripts 1/2\n", result.stderr
    assert read_sealed(tmp_path / "agreement.json") == {
        "utterances": 2,
        "identical_transcripts": 1,
        "first_differing": [{"id": "yes", "reference": "yes", "hypothesis": "YE", "eager": "YES"}],
        "largest_posterior_difference": pytest.approx(0.89),
        "largest_posterior_difference_in": "yes",
        "other_lengths": 0,
        "eager_versions": {"torch": "2eager-"},
    }
    (tmp_path / "eager-p.bin").write_bytes(bytes(10))
    (tmp_path / "agreement.json").unlink()
    assert_one_line_error(
        run_stage("scoring.agreement", *arguments), "eager-p.bin: altered", "--force"
    )
    assert not (tmp_path / "agreement.json").exists()
