"""Decoders: what they write, when it was said, and how sure they are.

Beam search is compared with all paths that there are, summed up by hand.
"""

import importlib.util
import itertools
import json
import math

import numpy as np
import pytest
from deepspeech2.cli import UserError
from deepspeech2.files import seal
from deepspeech2.model import posteriors as posteriors_file
from deepspeech2.scoring import arpa, decode, decoders, language_model
from deepspeech2.scoring.decoders import Settings, create
from helpers import LABELS, assert_one_line_error, posteriors_of, run_stage, write_sealed

SMALL = ["_", "A", " "]
WIDE = {"beam_width": 1000, "beam_threshold": 1e6}
TEXTS = "A A\nAA A\nA\n"
needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("flashlight") is None, reason="needs envs/beam.txt"
)


def model_of(folder, texts, unit="character", order=3):
    """A language model built of texts."""
    (folder / "texts").write_text(texts)
    paths = folder / "m.arpa", folder / "m.json", folder / "known.txt"
    language_model.main([folder / "texts"], None, unit, order, *paths)
    return arpa.read(paths[1])[0]


def probability(model, text, unit, order):
    """ln P(text) of an ARPA file, by its definition, and of its end."""
    sections, size = {}, 0
    for line in model.path.read_text().splitlines():
        if line.endswith("-grams:"):
            size = int(line[1:].partition("-")[0])
        elif size and line and not line.startswith("\\"):
            value, *rest = line.split("\t")
            gram = tuple(rest[0].split(" "))
            sections[gram] = float(value), float(rest[1]) if len(rest) > 1 else 0.0

    def of(gram):
        if gram in sections:
            return sections[gram][0]
        if len(gram) == 1:
            return sections[("<unk>",)][0]
        return sections.get(gram[:-1], (0, 0))[1] + of(gram[1:])

    line = ["<s>", *language_model.units_of(text, unit), "</s>"]
    total = sum(
        of(tuple(line[max(0, place + 1 - order) : place + 1])) for place in range(1, len(line))
    )
    return total * math.log(10)


def collapse(path, labels):
    kept = [label for label, _ in itertools.groupby(path)]
    return "".join(labels[label] for label in kept if label)


def by_force(posteriors, labels, score, same=str):
    """The best text of all, by the sum over all its paths and `score`; and all scores."""
    frames, classes = posteriors.shape
    sums = {}
    for path in itertools.product(range(classes), repeat=frames):
        weight = math.prod(posteriors[t, label] for t, label in enumerate(path))
        text = same(collapse(path, labels))
        sums[text] = sums.get(text, 0.0) + weight
    scores = {text: math.log(total) + score(text) for text, total in sums.items()}
    return max(scores, key=scores.get), scores


@needs_beam
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (0.8, 0.0), (1.5, 1.2), (0.5, -2.0)])
def test_beam_search_finds_the_best_of_all_paths(tmp_path, seed, alpha, beta):
    """3 labels x 4 frames. alpha is a weight of natural logarithms, whatever ARPA has."""
    model = model_of(tmp_path, TEXTS)
    posteriors = np.random.default_rng(seed).dirichlet([0.6] * 3, 4).astype(np.float32)
    options = {**WIDE, "alpha": alpha, "beta": beta}
    found = create(Settings("beam", options), SMALL, model)(posteriors).text

    def score(text):
        return alpha * probability(model, text, "character", 3) + beta * text.count(" ")

    best, scores = by_force(posteriors, SMALL, score)
    assert found == best or scores[found] == pytest.approx(scores[best], abs=1e-4)


@needs_beam
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("alpha", "beta"), [(0.7, 0.0), (1.0, 2.0)])
def test_beam_search_with_words_writes_words_only(tmp_path, seed, alpha, beta):
    """Also as the last word, which no space follows."""
    labels = ["_", "A", "B", " "]
    model = model_of(tmp_path, "A BA\nBA\nBA A A\n", "word", 2)
    posteriors = np.random.default_rng(seed).dirichlet([0.5] * 4, 4).astype(np.float32)
    options = {**WIDE, "alpha": alpha, "beta": beta}
    found = create(Settings("beam", options), labels, model)(posteriors).text

    def score(text):
        if not set(text.split()) <= {"A", "BA"}:
            return -math.inf
        return alpha * probability(model, text, "word", 2) + beta * len(text.split())

    best, scores = by_force(posteriors, labels, score, lambda text: " ".join(text.split()))
    assert set(found.split()) <= {"A", "BA"}
    found = " ".join(found.split())
    assert found == best or scores[found] == pytest.approx(scores[best], abs=1e-3)


@needs_beam
def test_a_beam_of_one_is_greedy_where_the_posteriors_are_sure():
    random = np.random.default_rng(0)
    beam = create(Settings("beam", {"beam_width": 1, "alpha": 0.0}), LABELS)
    greedy = create(Settings("greedy", {}), LABELS)
    for _ in range(20):
        path = "".join(random.choice(list("__ABC  D"), size=30))
        posteriors = posteriors_of(path)
        assert beam(posteriors).text == greedy(posteriors).text
        for ours, theirs in zip(beam(posteriors)[1:], greedy(posteriors)[1:]):
            assert np.array_equal(ours, theirs)


@needs_beam
def test_a_model_of_one_sentence_pulls_what_is_unclear_its_way(tmp_path):
    posteriors = posteriors_of("G_O_ _O_M")
    posteriors[-1, [LABELS.index("M"), LABELS.index("N")]] = 0.46, 0.44
    greedy = create(Settings("greedy", {}), LABELS)(posteriors).text
    for unit in arpa.UNITS:
        model = model_of(tmp_path, "GO ON\n", unit)
        assert create(Settings("beam", {}), LABELS, model)(posteriors).text == "GO ON" != greedy


@needs_beam
@pytest.mark.parametrize("unit", [None, *arpa.UNITS])
def test_nothing_one_frame_and_silence(tmp_path, unit):
    model = model_of(tmp_path, "A\nGO ON\n", unit) if unit else None
    decoder = create(Settings("beam", {"beta": 1.0}), LABELS, model)
    for posteriors in (np.zeros((0, len(LABELS)), np.float32), posteriors_of("____")):
        found = decoder(posteriors)
        assert found.text.strip() == "" and len(found.starts) == len(found.text)
    assert decoder(posteriors_of("A")).text == "A"
    assert decoder(posteriors_of("_")).text == ""
    assert len(decoder(np.zeros((3, len(LABELS)), np.float32)).text) <= 3


@needs_beam
def test_the_last_word_needs_no_space(tmp_path):
    """And with a bonus for words it is not cut in two."""
    model = model_of(tmp_path, "GO ON\nGO\nON\n", "word", 2)
    decoder = create(Settings("beam", {"beta": 3.0}), LABELS, model)
    found = decoder(posteriors_of("G_O_ _O_N"))
    assert found.text == "GO ON"
    assert found.starts.tolist() == [0, 2, 4, 6, 8] and found.ends.tolist() == [1, 3, 5, 7, 9]


@needs_beam
@pytest.mark.parametrize(
    ("texts", "unit", "words"),
    [
        ("yes\nno\n", "character", "5 of its 5 units cannot be written"),
        ("yes\nno\n", "word", "2 of its 2 units cannot be written"),
        ("CAFÉ\n", "character", "(É)"),
    ],
)
def test_a_model_that_the_labels_cannot_write_is_refused(tmp_path, texts, unit, words):
    with pytest.raises(UserError) as error:
        create(Settings("beam", {}), LABELS, model_of(tmp_path, texts, unit))
    assert words in str(error.value) and "letters and case" in str(error.value)


@needs_beam
def test_a_model_of_higher_order_than_the_library_has_is_one_line(tmp_path, capfd):
    model = model_of(tmp_path, "A B C D E F G H I\n", "character", 9)
    with pytest.raises(UserError, match="cannot be used as a language model"):
        create(Settings("beam", {}), LABELS, model)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": -1}, "alpha -1: must be a number from 0 to 100"),
        ({"beam_width": 1.5}, "must be a whole number from 1 to 10000"),
        ({"lm_path": "x.arpa"}, "language_models"),
        ({"cutoff_prob": 1.0}, "beam_threshold"),
        ({"lm_workers": 4}, "accuracy.threads"),
        ({"top_paths": 1}, "only the best"),
        ({"width": 4}, "has no option 'width'; known are: alpha, beta, beam_width"),
    ],
)
def test_wrong_options_are_refused(options, words):
    """Of deepspeech.pytorch V3 the names that are none here tell what is instead."""
    with pytest.raises(UserError) as error:
        decoders.complete("beam", options)
    assert words in str(error.value)
    assert decoders.complete("beam", {"alpha": 1, "beta": 0.5, "cutoff_top_n": 3}).options[
        "beam_width"
    ]


@needs_beam
def test_any_number_of_processes_decodes_alike(tmp_path):
    model = model_of(tmp_path, "GO ON\nYES\n")
    random = np.random.default_rng(1)
    given = [(f"u{n}", random.dirichlet([0.1] * 29, n % 7).astype("f4")) for n in range(70)]
    settings = decoders.complete("beam", {"beam_width": 5})
    one, two = (list(decode.decode_all(settings, LABELS, model, iter(given), n)) for n in (1, 2))
    assert [name for name, _ in one] == [name for name, _ in given]
    for (name, ours), (other, theirs) in zip(one, two):
        assert name == other and ours.text == theirs.text
        assert all(np.array_equal(a, b) for a, b in zip(ours[1:], theirs[1:]))


def test_a_tuning_fits_its_decoder_and_model(tmp_path):
    """An altered choice, or one for another model, is refused in one line."""
    utterances = [{"id": "a", "seconds": 1.5, "reference": "YES", "frames": 9}]
    about = {"labels": LABELS, "spectrogram": {"window_stride": 0.01}}
    write_sealed(tmp_path / "f.json", {**about, "utterances": utterances})
    paths = tmp_path / "p.bin", tmp_path / "p.json"
    posteriors_file.write(*paths, iter([("a", posteriors_of("YE_SS"))]), {})
    line = {"options": {"alpha": 0.25}, "wer": 1.0}
    content = {
        "decoder": {"kind": "beam", "options": {"beam_width": 7}}, "language_model": None,
        "dataset": "v", "chosen": line, "chosen_sha256": "0",
    }  # fmt: skip
    arguments = (
        "--posteriors", paths[0], "--posteriors-index", paths[1], "--features-index",
        tmp_path / "f.json", "--transcripts", tmp_path / "t.jsonl", "--index", tmp_path / "t.json",
        "--tuning", write_sealed(tmp_path / "tuning.json", content),
    )  # fmt: skip
    beam = json.dumps({"kind": "beam", "options": {"beta": 0.5}})
    result = run_stage("scoring.decode", *arguments, "--decoder", beam)
    assert_one_line_error(result, "tuning.json: altered since it was written; tune again")
    write_sealed(tmp_path / "tuning.json", {**content, "chosen_sha256": seal(line)})
    result = run_stage("scoring.decode", *arguments, "--decoder", "greedy")
    assert_one_line_error(result, "chosen for another decoder or language model")
    pytest.importorskip("flashlight", reason="needs envs/beam.txt")
    result = run_stage("scoring.decode", *arguments, "--decoder", beam)
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "t.json").read_text())
    options = found["decoder"]["options"]
    assert (options["alpha"], options["beta"], options["beam_width"]) == (0.25, 0.5, 7)
    assert found["tuning"]["chosen_sha256"] == seal(line)
