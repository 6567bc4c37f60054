"""Classes of utterances by text and by length, in which accuracy is shown apart."""

from __future__ import annotations

from deepspeech2.scoring.alignment import words

LENGTHS = (2, 4, 8, 16)  # seconds, the bounds between classes of length
# The words that AN4 and its like spell numbers with.
NUMBERS = frozenset(
    "OH ZERO ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE TEN ELEVEN TWELVE THIRTEEN FOURTEEN "
    "FIFTEEN SIXTEEN SEVENTEEN EIGHTEEN NINETEEN TWENTY THIRTY FORTY FIFTY SIXTY SEVENTY EIGHTY "
    "NINETY HUNDRED THOUSAND MILLION AND POINT".split()
)
COMMANDS = frozenset("CLEAR ENTER ERASE GO HELP NO REPEAT RUBOUT START STOP YES".split())


def text_class(text: str) -> str:
    """The kind of a text as AN4 has them: number, spelling, command, or other.

    A number is number words only, a spelling letters and perhaps number words ("K SIX FOUR"), a
    command begins with a word of COMMANDS; dates and addresses are other.
    """
    tokens = [token.upper() for token in words(text)]
    if all(token in NUMBERS for token in tokens):
        return "number"
    if all(len(token) == 1 or token in NUMBERS for token in tokens):
        return "spelling"
    return "command" if tokens[0] in COMMANDS else "other"


def length_class(seconds: float) -> str:
    """The class of a duration, by the bounds of LENGTHS."""
    for low, high in zip((0, *LENGTHS), LENGTHS):
        if seconds < high:
            return f"{low} to {high} s"
    return f"{LENGTHS[-1]} s and more"
