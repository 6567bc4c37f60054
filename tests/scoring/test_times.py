"""When words are said: seconds from frames, the network's delay, the files that tell them."""

import json

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from deepspeech2.cli import UserError
from deepspeech2.corpus.audio import to_float
from deepspeech2.features import spectrogram
from deepspeech2.features.spectrogram import Spectrogram
from deepspeech2.model import network
from deepspeech2.model import posteriors as posteriors_file
from deepspeech2.scoring import times
from deepspeech2.scoring import transcripts as transcripts_file
from deepspeech2.scoring.decoders.greedy import Decoder as Greedy
from deepspeech2.scoring.times import Span
from helpers import (
    LABELS,
    assert_one_line_error,
    posteriors_of,
    run_stage,
    write_sealed,
    write_transcripts,
)

FRAME = times.seconds_per_frame(0.01)


def spans(path, duration=10.0, posteriors=None):
    decoded = Greedy(LABELS)(posteriors_of(path) if posteriors is None else posteriors)
    return times.words(decoded, FRAME, duration), times.characters(decoded, FRAME, duration)


def test_a_frame_is_the_middle_of_its_seconds():
    """Frame 10 of a stride of 10 ms, halved by the network, is about 0.2 s."""
    assert round(FRAME, 9) == 0.02
    words, characters = spans("_" * 10 + "A" + "_" * 10)
    assert characters == words == [Span("A", 0.19, 0.21, 0.9)]


def test_a_word_lasts_from_space_to_space():
    words, characters = spans("__A_B__  __C__ ___DD_")
    assert [w[:3] for w in words] == [
        ("AB", 0.03, 0.13),  # from its first character, to the space
        ("C", 0.17, 0.27),
        ("D", 0.29, 0.39),  # to its last character
    ]
    assert [c[:3] for c in characters] == [
        ("A", 0.03, 0.05), ("B", 0.07, 0.09), ("C", 0.21, 0.23), ("D", 0.35, 0.39)
    ]  # fmt: skip


def test_nothing_is_before_the_start_or_after_the_end():
    words, _ = spans("AAAA", 0.05)
    assert words == [Span("AAAA"[:1], 0.0, 0.05, 0.9)]
    assert spans("____") == spans("") == spans("_ _ ") == ([], [])


def test_a_character_is_as_sure_as_its_best_frame_and_a_word_as_all_of_them():
    posteriors = posteriors_of("_AAA_BB_ C")
    a, b = LABELS.index("A"), LABELS.index("B")
    posteriors[1:4, a] = 0.5, 0.8, 0.4
    posteriors[5:7, b] = 0.6, 0.5
    words, characters = spans("", posteriors=posteriors)
    assert [c.confidence for c in characters] == [0.8, 0.6, 0.9]
    assert [w.confidence for w in words] == [0.48, 0.9]


@pytest.fixture(scope="module")
def heard():
    """Posteriors that the embedded network makes of samples."""
    torch = pytest.importorskip("torch")
    path = ROOT / "resources/checkpoints/embedded.safetensors"
    net = network.load_alone(path, "packed")

    def posteriors(samples):
        features = spectrogram.compute(samples, Spectrogram())[None, None]
        lengths = torch.tensor([features.shape[3]], dtype=torch.int32)
        with torch.inference_mode():
            return net(torch.from_numpy(np.ascontiguousarray(features)), lengths)[0][0].numpy()

    return posteriors


@pytest.mark.parametrize("shift", [1, 10, 27])
def test_words_that_are_said_later_are_found_so_much_later(heard, shift):
    samples, _ = soundfile.read(ROOT / "resources/sample/audio/sample-002.flac", dtype="int16")
    noise = np.random.default_rng(0).normal(scale=58, size=16000).astype(np.int16)

    def found(before):
        silences = noise[:before], noise[before:]
        everything = to_float(np.concatenate([silences[0], samples, silences[1]]))
        return spans("", posteriors=heard(everything))[0]

    first, later = found(3200), found(3200 + 320 * shift)
    assert " ".join(w.text for w in first) == " ".join(w.text for w in later)
    assert len(first) == 6
    for one, other in zip(first, later):
        assert other.start - one.start == pytest.approx(shift * FRAME, abs=0.021)
        assert other.end - one.end == pytest.approx(shift * FRAME, abs=0.021)
    shifts = [other.start - one.start for one, other in zip(first, later)]
    assert np.median(shifts) == pytest.approx(shift * FRAME, abs=0.001)


def test_the_convolutions_delay_nothing():
    """What changes in one frame of the spectrogram changes as many frames before as after it."""
    torch = pytest.importorskip("torch")
    convolutions = torch.nn.Sequential()
    from deepspeech2.model.architecture import CHANNELS, KERNELS, PADDINGS, STRIDES

    torch.manual_seed(0)
    for inputs, shape in zip((1, CHANNELS), zip(KERNELS, STRIDES, PADDINGS)):
        convolutions.append(torch.nn.Conv2d(inputs, CHANNELS, *shape))
    impulse = torch.zeros(1, 1, 161, 100)
    impulse[..., 40] = 1
    with torch.inference_mode():
        change = (convolutions(impulse) - convolutions(0 * impulse)).abs().amax((0, 1, 2))
    frames = change.nonzero().ravel().tolist()
    assert frames == [*range(20 - 7, 20 + 8)]


# The files.


ENTRY = {
    "reference": "GO ON",
    "hypothesis": "GO ÖN",
    "words": [["GO", 0.1, 0.3, 0.9], ["ÖN", 0.3, 0.30004, 1]],
    "characters": [[c, 0.1, 0.3, 0.5] for c in "GOÖN"],
}


def ctm_of(folder, entries, heard=None):
    """`heard` are paths of labels by utterance, where they do not spell the reference."""
    path = write_transcripts(folder / "t.jsonl", entries)
    utterances = [
        {"id": name, "seconds": 1.5, "reference": entry["reference"]}
        for name, entry in entries.items()
    ]
    about = {"labels": LABELS, "spectrogram": {"window_stride": 0.01}, "utterances": utterances}
    write_sealed(folder / "f.json", about)
    spelled = {name: "_".join(entry["reference"]) for name, entry in entries.items()}
    given = {name: posteriors_of(text) for name, text in {**spelled, **(heard or {})}.items()}
    posteriors_file.write(folder / "p.bin", folder / "p.json", iter(given.items()), {})
    return run_stage(
        "scoring.ctm", "--transcripts", path, "--transcripts-index", folder / "t.json",
        "--posteriors", folder / "p.bin", "--posteriors-index", folder / "p.json",
        "--features-index", folder / "f.json", "--ctm", folder / "t.ctm",
        "--references", folder / "ref.ctm",
    )  # fmt: skip


def test_ctm(tmp_path):
    result = ctm_of(tmp_path, {"b/2": ENTRY, "b": {**ENTRY}, "a b": {
        "reference": "A", "hypothesis": "", "words": [], "characters": []}})  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "t.ctm").read_text(encoding="utf-8").splitlines() == [
        "b 1 0.100 0.200 GO 0.9000",
        "b 1 0.300 0.000 ÖN 1.0000",
        "b_2 1 0.100 0.200 GO 0.9000",
        "b_2 1 0.300 0.000 ÖN 1.0000",
    ]


def test_ctm_of_references_is_their_forced_alignment(tmp_path):
    """Also where something else was heard; what is too short for its text is told and left out."""
    heard = {"other": "YY_ES__ N_O_", "short": "GO"}
    result = ctm_of(tmp_path, {"said": ENTRY, "other": ENTRY, "short": ENTRY}, heard)
    assert result.returncode == 0, result.stderr
    assert "short: has too few frames" in result.stderr
    lines = [line.split() for line in (tmp_path / "ref.ctm").read_text().splitlines()]
    assert [(line[0], line[4]) for line in lines] == [
        ("other", "GO"), ("other", "ON"), ("said", "GO"), ("said", "ON")
    ]  # fmt: skip
    # G_O_ _O_N: the space is frame 4, of 20 ms each, half of it before its middle.
    assert lines[2][2:4] == ["0.000", "0.070"] and lines[3][2:4] == ["0.090", "0.080"]
    assert all(float(line[5]) > 0.7 for line in lines[2:]) and float(lines[0][5]) < 0.01


def test_ctm_needs_times_and_no_markup(tmp_path):
    texts = {"reference": "A", "hypothesis": "A"}
    assert_one_line_error(ctm_of(tmp_path, {"u": texts}), "t.jsonl", "no times of words")
    marked = {**texts, "hypothesis": "<A>", "words": [["<A>", 0, 1, 1]]}
    assert_one_line_error(ctm_of(tmp_path, {"u": marked}), "t.jsonl", "'<' for markup")


def read(folder, **changes):
    path = folder / "t.jsonl"
    entry = {"id": "u", **ENTRY, **changes}
    path.write_text(json.dumps({k: v for k, v in entry.items() if v is not ...}))
    return transcripts_file.read(path)["u"]


def test_transcripts_keep_their_times(tmp_path):
    assert read(tmp_path) == ENTRY
    old = read(tmp_path, words=..., characters=...)
    assert old == {key: ENTRY[key] for key in ("reference", "hypothesis")}


@pytest.mark.parametrize(
    "word",
    [
        ["ON", 0.1, 0.3, 0.9],  # another
        ["ÖN", 0.1, 0.3],
        ["ÖN", 0.3, 0.1, 0.9],
        ["ÖN", -0.1, 0.3, 0.9],
        ["ÖN", 0.1, 0.3, 1.1],
        ["ÖN", 0.1, 1e999, 0.9],
        ["ÖN", 0.1, 10**400, 0.9],
        ["ÖN", 0.1, True, 0.9],
        ["ÖN", "0.1", 0.3, 0.9],
        ["ÖN", None, 0.3, 0.9],
        {"ÖN": 1},
        None,
    ],
)
def test_broken_times_are_refused(tmp_path, word):
    with pytest.raises(UserError, match=r"t\.jsonl: line 1: "):
        read(tmp_path, words=[ENTRY["words"][0], word])


@pytest.mark.parametrize("spans", [None, "GOÖN", {}, [], ENTRY["words"]])
def test_characters_are_those_of_the_hypothesis(tmp_path, spans):
    with pytest.raises(UserError, match="its characters are not those of the hypothesis"):
        read(tmp_path, characters=spans)
