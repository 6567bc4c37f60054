"""Numbers in transcripts, spelled as words by num2words (an optional extra).

Four digits are a number, not a year; what begins with a zero or has more than MAX_DIGITS is read
digit by digit. Signs (%, $) stay as they are.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from deepspeech2.cli import UserError

INSTALL = "pip install -r envs/text.txt"
NOTE = "have numbers spelled as words in their transcripts"
MAX_DIGITS = 15
NUMBER = re.compile(
    r"(?P<minus>(?<!\S)[-\u2212])?(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
    r"(?:\.(?P<decimals>[0-9]+)|(?P<ordinal>st|nd|rd|th)\b)?",
    re.IGNORECASE,
)


def spelled(text: str, upper: bool) -> str:
    """A text with its numbers in words, in upper or lower case; a letter beside one is parted."""
    text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)

    def words(found: re.Match) -> str:
        said = _words(found)
        before, after = text[: found.start()][-1:], text[found.end() :][:1]
        said = said.upper() if upper else said
        return f"{' ' * before.isalpha()}{said}{' ' * after.isalpha()}"

    return NUMBER.sub(words, text)


@functools.cache
def _said(number: int, to: str = "cardinal") -> str:
    try:
        from num2words import num2words
    except ImportError:
        raise UserError(f"digits: words: needs num2words: {INSTALL}") from None
    return num2words(number, to=to)


def _words(found: re.Match) -> str:
    digits = found["whole"].replace(",", "")
    by_digit = (digits[0] == "0" and len(digits) > 1) or len(digits) > MAX_DIGITS
    if by_digit:
        said = " ".join(_said(int(digit)) for digit in digits) + (found["ordinal"] or "")
    else:
        said = _said(int(digits), "ordinal" if found["ordinal"] else "cardinal")
    if found["decimals"]:
        said += " point " + " ".join(_said(int(digit)) for digit in found["decimals"])
    return " ".join(re.sub("[-,]", " ", f"{'minus ' * bool(found['minus'])}{said}").split())
