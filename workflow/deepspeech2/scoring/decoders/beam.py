"""CTC beam search with an n-gram language model, by the package ufal-flashlight-text.

A text's score is ln P(text | sound) + alpha ln P(text | language model) + beta times its words
(with a model of characters, its spaces). With a model of characters any text can be written; with
one of words only the words that it has. Without a model, alpha means nothing. P(text | sound) is
the sum over all paths through the frames that the beam holds, unless `best_path`.

Where it differs from the package: its language models' scores are log10, and added to natural
logarithms; a spelling ends with the space, so that the last word of an utterance needs a frame
more; and what it returns are paths, of which those of one text are added up here.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from typing import Any, ClassVar

import numpy as np

from deepspeech2.cli import UserError
from deepspeech2.corpus.labels import BLANK
from deepspeech2.options import Option
from deepspeech2.scoring import arpa, decoders

SMALLEST = np.finfo(np.float32).tiny  # ln of it is -87
NEVER = -1e4  # ln of what may not be
MANY = 10_000


class Decoder(decoders.Decoder):
    """See the module."""

    options: ClassVar[dict[str, Option]] = {
        "alpha": Option(0.5, "weight of the language model", 0, 100),
        "beta": Option(0.0, "added for each word (natural logarithm)", -100, 100),
        "beam_width": Option(25, "hypotheses that are kept at each frame", 1, MANY),
        "beam_threshold": Option(
            25.0, "how far below the best they may be (natural logarithm)", 0, 1e6
        ),
        "cutoff_top_n": Option(
            40, "labels that are tried at each frame, the most probable", 1, MANY
        ),
        "best_path": Option(False, "score a text by its best path, not by the sum of all"),
    }
    refused: ClassVar[dict[str, str]] = {
        "lm_path": "name the file as an entry of language_models, and that as language_model",
        "cutoff_prob": "this search has no bound of the probabilities' sum; see beam_threshold and "
        "cutoff_top_n",
        "lm_workers": "set accuracy.threads: the result is the same for any number",
        "top_paths": "only the best text is kept",
        "decoder_type": "it is the entry's kind",
    }
    uses_language_model = True
    needs, extra = "flashlight", "beam"

    def __init__(self, labels, options=None, model=None):
        super().__init__(labels, options, model)
        lib, kenlm, dictionary = _import()
        s, unit = self.settings, model.unit if model else "character"
        self.space = list(labels).index(" ") if " " in labels else -1
        names = list(labels)
        names[BLANK] = "<blank>"
        words = _units(model) if model else set()
        if self.space >= 0:
            names[self.space] = next((n for n in arpa.SPACES if n in words), arpa.SPACE)
        if model:
            _require_writable(words, unit, names, labels, model)
        self.of_words = unit == "word"
        if self.of_words and self.space < 0:
            raise UserError(f"{model.path}: of words, but the model's labels have no space")
        weight = s["alpha"] * math.log(10) if model else 0.0
        shared = (s["beam_width"], min(s["cutoff_top_n"], len(names)), s["beam_threshold"], weight)
        sums = not s["best_path"]
        if not self.of_words:
            lm = _load(kenlm, model, dictionary.Dictionary(names)) if model else None
            how = lib.LexiconFreeDecoderOptions(*shared, 0.0, sums, lib.CriterionType.CTC)
            # Not the space as its silence: what stands in the first frame is never scored.
            self.search = lib.LexiconFreeDecoder(how, lm or lib.ZeroLM(), BLANK, BLANK, [])
            return
        known = sorted(words)
        lm = _load(kenlm, model, dictionary.Dictionary([*known, arpa.UNKNOWN]))
        trie, start = lib.Trie(len(names), self.space), lm.start(False)
        places = {label: place for place, label in enumerate(labels)}
        for number, word in enumerate(known):
            _, score = lm.score(start, number)
            trie.insert([*(places[letter] for letter in word), self.space], number, score)
        trie.smear(lib.SmearingMode.MAX)
        how = lib.LexiconDecoderOptions(
            *shared, s["beta"], -math.inf, 0.0, sums, lib.CriterionType.CTC
        )
        self.search = lib.LexiconDecoder(how, trie, lm, self.space, BLANK, len(known), [], False)

    def path(self, posteriors: np.ndarray) -> np.ndarray:
        frames, classes = posteriors.shape
        if not frames:
            return np.zeros(0, int)
        emissions = np.log(np.maximum(posteriors, SMALLEST, dtype=np.float32))
        if self.of_words:  # the space that ends the last word
            last = np.full((1, classes), NEVER, np.float32)
            last[0, self.space] = 0
            emissions = np.concatenate([emissions, last])
        emissions = np.ascontiguousarray(emissions, np.float32)
        results = self.search.decode(emissions.ctypes.data, len(emissions), classes)
        best: dict[tuple, Any] = {}
        scores: dict[tuple, float] = {}
        for result in results:
            # One label more at each end than there are frames.
            merged = [label for label, _ in itertools.groupby(result.tokens[1 : frames + 1])]
            text = tuple(label for label in merged if label != BLANK)
            key = self._words(text) if self.of_words else text
            if key not in best or result.score > best[key].score:
                best[key] = result
            total = scores.get(key, -math.inf)
            several = max if self.settings["best_path"] else np.logaddexp
            scores[key] = several(total, result.score)
        if not scores:  # nothing that the model allows
            return np.full(frames, BLANK)
        chosen = best[max(scores, key=lambda key: scores[key] + self._bonus(key))]
        return np.array(chosen.tokens[1 : frames + 1])

    def _words(self, text: tuple) -> tuple:
        """The words of a text: with a model of words it does not matter where more spaces stand."""
        parts = itertools.groupby(text, lambda label: label == self.space)
        return tuple(tuple(word) for is_space, word in parts if not is_space)

    def _bonus(self, text: tuple) -> float:
        """What the search does not add itself: with a model of characters it would for each frame
        of a space.
        """
        return 0.0 if self.of_words else self.settings["beta"] * text.count(self.space)


def _import() -> tuple:
    try:
        from flashlight.lib.text import decoder, dictionary
        from flashlight.lib.text.decoder import kenlm
    except ImportError as error:
        raise UserError(
            f"beam search needs the package ufal-flashlight-text ({error}); "
            "pip install -r envs/beam.txt"
        ) from None
    return decoder, kenlm, dictionary


def _load(kenlm, model: arpa.LanguageModel, units) -> Any:
    """The language model, without what the library prints to standard error while it reads it."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        return kenlm.KenLM(str(model.path), units)
    except RuntimeError as error:
        reason = re.sub(r"^.*because|Byte:.*$", "", " ".join(str(error).split()))
        raise UserError(f"{model.path}: cannot be used as a language model ({reason})") from None
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _units(model: arpa.LanguageModel) -> set[str]:
    """The single units of a model, without its special ones."""
    with open(model.path, encoding="utf-8") as file:
        lines = itertools.dropwhile(lambda line: line.strip() != "\\1-grams:", file)
        next(lines)
        section = itertools.takewhile(lambda line: not line.startswith("\\"), lines)
        return {line.split()[1] for line in section if line.strip()} - arpa.SPECIAL


def _require_writable(words, unit, names, labels, model) -> None:
    written = set(names) if unit == "character" else set(labels) - {" "}
    wrong = sorted(w for w in words if not ({w} if unit == "character" else set(w)) <= written)
    if wrong:
        raise UserError(
            f"{model.path}: {len(wrong)} of its {len(words)} units cannot be written with the "
            f"model's labels ({', '.join(wrong[:3])}); make it of texts in their letters and case"
        )
