"""Normalisers of texts, under which references and hypotheses can be scored a second time.

A normaliser is a function and a line in NORMALISERS.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata

from deepspeech2.cli import UserError

INSTALL = "pip install -r envs/text.txt"
Normaliser = Callable[[str], str]


def whisper() -> tuple[Normaliser, str]:
    """OpenAI Whisper's for English, and the version of the package that has it."""
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError:
        raise UserError(
            f"score: normaliser: whisper: needs the package whisper-normalizer: {INSTALL}"
        ) from None
    return EnglishTextNormalizer(), f"whisper-normalizer {metadata.version('whisper-normalizer')}"


NORMALISERS = {"whisper": whisper}
