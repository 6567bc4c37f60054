"""How posteriors become text. A decoder is one class, and a line in DECODERS.

A decoder chooses a label for each frame. Text, times and confidence follow from those labels alike
for all decoders: repeats are merged, blanks dropped.
"""

from __future__ import annotations

import abc
import importlib
import json
from argparse import ArgumentTypeError
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from deepspeech2.cli import UserError
from deepspeech2.corpus.labels import BLANK
from deepspeech2.options import Option
from deepspeech2.scoring.arpa import LanguageModel

DECODERS = {
    "greedy": "deepspeech2.scoring.decoders.greedy",
    "beam": "deepspeech2.scoring.decoders.beam",
}


class Decoded(NamedTuple):
    """A text, and of each of its characters the first frame, the one after its last, and its
    confidence: the highest probability of its label in those frames.
    """

    text: str
    starts: np.ndarray
    ends: np.ndarray
    confidences: np.ndarray


class Decoder(abc.ABC):
    """Turns posteriors into texts of `labels` (single characters, the blank first)."""

    options: ClassVar[dict[str, Option]] = {}
    # Options that other programs have under these names, and why they are none here.
    refused: ClassVar[dict[str, str]] = {}
    uses_language_model = False
    # A module that it needs and an installation may lack, and the file of envs/ that has it.
    needs, extra = "", ""

    def __init__(
        self,
        labels: Sequence[str],
        options: dict[str, Any] | None = None,
        model: LanguageModel | None = None,
    ):
        self.labels = np.array(labels)
        self.settings = {n: o.default for n, o in self.options.items()} | (options or {})

    @abc.abstractmethod
    def path(self, posteriors: np.ndarray) -> np.ndarray:
        """A label for each frame (T',) of posteriors (T', classes)."""

    def __call__(self, posteriors: np.ndarray) -> Decoded:
        """The text of posteriors (T', classes)."""
        return of_path(self.path(posteriors), posteriors, self.labels)


def of_path(path: np.ndarray, posteriors: np.ndarray, labels: Sequence[str]) -> Decoded:
    """What a path, a label for each frame (T',) of posteriors (T', classes), says."""
    change = np.flatnonzero(np.diff(path, prepend=-1, append=-1))
    starts, ends = change[:-1], change[1:]
    spoken = path[starts] != BLANK
    chosen = posteriors[np.arange(len(path)), path]
    confidences = np.maximum.reduceat(chosen, starts)[spoken]
    starts, ends = starts[spoken], ends[spoken]
    return Decoded("".join(labels[i] for i in path[starts]), starts, ends, confidences)


class Settings(NamedTuple):
    """How to decode: kind and options of an entry of the configuration's `decoders`."""

    kind: str
    options: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> Settings:
        """The settings that JSON holds, or a kind of decoder with its defaults."""
        try:
            found = {"kind": text} if text in DECODERS else json.loads(text)
            complete(found["kind"], found.get("options") or {})  # checks them
            return cls(found["kind"], found.get("options") or {})
        except UserError as error:
            raise ArgumentTypeError(str(error)) from None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            known = ", ".join(DECODERS)
            raise ArgumentTypeError(f"neither JSON with kind and options nor {known}") from None

    def text(self) -> str:
        """The JSON that `parse` takes."""
        return json.dumps(self._asdict(), sort_keys=True)


def decoder_class(kind: str) -> type[Decoder]:
    """The class of a kind of decoder."""
    if kind not in DECODERS:
        raise UserError(f"unknown decoder {kind!r}; known are: {', '.join(DECODERS)}")
    return importlib.import_module(DECODERS[kind]).Decoder


def complete(kind: str, given: dict[str, Any]) -> Settings:
    """Settings of a decoder, checked, with its defaults where nothing is given."""
    decoder = decoder_class(kind)
    for name, value in given.items():
        if name in decoder.refused:
            raise UserError(f"decoder {kind}: {name}: {decoder.refused[name]}")
        if name not in decoder.options:
            known = ", ".join(decoder.options) or "none"
            raise UserError(f"decoder {kind} has no option {name!r}; known are: {known}")
        decoder.options[name].check(f"decoder {kind}: {name}", value)
    return Settings(kind, {n: o.default for n, o in decoder.options.items()} | given)


def create(
    settings: Settings, labels: Sequence[str], model: LanguageModel | None = None
) -> Decoder:
    """A decoder of these labels."""
    decoder = decoder_class(settings.kind)
    if model and not decoder.uses_language_model:
        raise UserError(f"decoder {settings.kind} uses no language model; name none")
    return decoder(labels, settings.options, model)
