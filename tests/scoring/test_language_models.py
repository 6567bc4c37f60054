"""n-grams of texts, and ARPA files that are at hand."""

import collections
import gzip
import itertools
import math

import pytest
from deepspeech2.cli import UserError
from deepspeech2.files import read_sealed
from deepspeech2.scoring import arpa, language_model
from helpers import assert_one_line_error, run_stage

TEXTS = "GO ON\nGO\nSTOP IT\nGO ON\n"


def build(folder, *more, texts=TEXTS, unit="word", order=2, data=None):
    folder.mkdir(exist_ok=True)
    given = folder / "given"
    given.write_bytes(data) if data is not None else given.write_text(texts)
    source = ("--texts=", "--arpa", given) if data is not None else ("--texts", given, "--arpa=")
    if data is not None:
        source = ("--texts", "--arpa", given)
    return run_stage(
        "scoring.language_model", *source, "--unit", unit, "--order", order,
        "--model", folder / "m.arpa", "--index", folder / "m.json", "--known", folder / "k.txt",
        *more,
    )  # fmt: skip


def test_a_model_of_texts(tmp_path):
    assert build(tmp_path).returncode == 0
    index = read_sealed(tmp_path / "m.json")
    assert (index["unit"], index["texts"]) == ("word", 4)
    assert (tmp_path / "k.txt").read_text() == "GO\nGO ON\nSTOP IT\n"
    lines = (tmp_path / "m.arpa").read_text().splitlines()
    assert lines[:4] == ["\\data\\", "ngram 1=7", "ngram 2=7", ""] and lines[-1] == "\\end\\"
    # 11 units were met, 5 different ones; 6 can come: with <unk>.
    grams = dict(reversed(line.split("\t")[:2]) for line in lines if "\t" in line)
    base = 5 / 16 / 6
    assert float(grams["GO"]) == pytest.approx(math.log10(3 / 16 + base), abs=1e-5)
    assert float(grams["<unk>"]) == pytest.approx(math.log10(base), abs=1e-5)
    # After GO came ON twice and the end once: 3 times, 2 different.
    on = 2 / 16 + base
    assert float(grams["GO ON"]) == pytest.approx(math.log10((2 + 2 * on) / 5), abs=1e-5)
    first = (tmp_path / "m.arpa").read_bytes()
    assert build(tmp_path).returncode == 0 and (tmp_path / "m.arpa").read_bytes() == first


@pytest.mark.parametrize("unit", arpa.UNITS)
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_add_up_to_one(unit, order):
    """After every context that was met, backing off included."""
    sentences = [language_model.units_of(line, unit) for line in TEXTS.splitlines()]
    grams, weights = language_model.build(sentences, order)
    everything = {gram: value for found in grams for gram, value in found.items()}
    units = [gram[0] for gram in grams[0] if gram[0] != arpa.BEGIN]

    def of(gram):
        if gram in everything:
            return 10 ** everything[gram]
        return 10 ** weights.get(gram[:-1], 0.0) * of(gram[1:])

    for context in [(), *weights]:
        assert sum(of((*context, unit)) for unit in units) == pytest.approx(1)


def test_a_model_of_characters_has_the_space(tmp_path):
    assert build(tmp_path, unit="character", order=3).returncode == 0
    assert read_sealed(tmp_path / "m.json")["unit"] == "character"
    assert "\nO | O" in (tmp_path / "m.arpa").read_text().replace("\t", "\n")


def test_an_arpa_file_is_taken_as_it_is(tmp_path):
    build(tmp_path / "made", unit="character", order=3)
    plain = (tmp_path / "made/m.arpa").read_bytes()
    for name, data in (("plain", plain), ("packed", gzip.compress(plain))):
        result = build(tmp_path / name, data=data)
        assert result.returncode == 0, result.stderr
        assert (tmp_path / name / "m.arpa").read_bytes() == plain
        index = read_sealed(tmp_path / name / "m.json")
        assert (index["unit"], index["texts_sha256"]) == ("character", None)


GOOD = b"\\data\\\nngram 1=3\n\n\\1-grams:\n-1 A\n-1 <s> 0\n-1 </s>\n\n\\end\\\n"
PACKED = gzip.compress(GOOD, mtime=0)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no \\end\\"),
        (b"hello\n", "no \\end\\"),
        (GOOD.replace(b"\\end\\", b""), "no \\end\\"),
        (GOOD.replace(b"ngram 1=3", b"ngram 1=4"), "line 9: not an ARPA file, or a cut one: 3"),
        (GOOD.replace(b"-1 A", b"x A"), "line 5: not an n-gram of 1 units"),
        (GOOD.replace(b"-1 A", b"-1 A 0 0"), "line 5: not an n-gram of 1 units"),
        (GOOD.replace(b"-1 A", b"nan A"), "line 5"),
        (GOOD.replace(b"\\1-grams", b"\\2-grams"), "line 4: \\2-grams:, not \\1-grams:"),
        (GOOD + b"more\n", "line 10: not of an ARPA file"),
        (b"\xff" + GOOD, "not a whole ARPA file"),
        (b"\\data\\\n" + b"x" * 20_000, "too long"),
        (PACKED[:-12], "not a whole ARPA file"),
        (PACKED[:20] + b"\0\0\0\0" + PACKED[24:], "not a whole ARPA"),
    ],
)
def test_what_is_no_arpa_file_is_one_line(tmp_path, data, words):
    assert_one_line_error(build(tmp_path, data=data), "given: ", words)
    assert not (tmp_path / "m.arpa").exists()


@pytest.mark.parametrize(
    ("texts", "unit", "words"),
    [
        ("", "word", "no texts"),
        (" \n\n", "word", "no texts"),
        ("A|B\n", "character", "'|' in a text means something else"),
        ("A <s> B\n", "word", "'<s>' in a text means something else"),
    ],
)
def test_texts_that_make_no_model_are_one_line(tmp_path, texts, unit, words):
    assert_one_line_error(build(tmp_path, texts=texts, unit=unit), words)


def test_a_model_agrees_with_counting(tmp_path):
    """A context that was met a thousand times backs off by next to nothing."""
    texts = ["A B"] * 1000 + ["A C"]
    grams, weights = language_model.build([t.split() for t in texts], 2)
    counts = collections.Counter(itertools.chain.from_iterable(t.split() for t in texts))
    assert 10 ** grams[1][("A", "B")] == pytest.approx(1000 / counts["A"], abs=3e-3)
    assert 10 ** weights[("A",)] == pytest.approx(2 / 1003, abs=1e-6)


def test_an_altered_model_is_refused(tmp_path):
    build(tmp_path)
    with open(tmp_path / "m.arpa", "a") as file:
        file.write("\n")
    with pytest.raises(UserError, match="altered since"):
        arpa.read(tmp_path / "m.json")
