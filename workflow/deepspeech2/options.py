"""Settings that only one backend or decoder has: their types, bounds and explanations."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from deepspeech2.cli import UserError


class Option(NamedTuple):
    """A setting: its default, whose type it has, and what it means.

    Numbers are from `low` to `high`, a text (or each of a list) matches `pattern` as a whole. With
    `optional` it may be None, too.
    """

    default: Any
    help: str
    low: float = 0
    high: float = 0
    pattern: str = ""
    optional: bool = False

    @property
    def kind(self) -> type:
        """Its values' type."""
        return str if self.optional else type(self.default)

    def check(self, name: str, value: Any) -> None:
        """Raise `UserError` where `value` is not one of this option's."""
        if value is None and self.optional:
            return
        kind = self.kind
        if kind is float and type(value) is int:
            kind = int
        texts = value if kind is list else [value] if kind is str else []
        if (
            type(value) is not kind
            or (kind in (int, float) and not self.low <= value <= self.high)
            or not all(type(x) is str and re.fullmatch(self.pattern, x) for x in texts)
        ):
            raise UserError(f"{name} {value!r:.100}: must be {self.rule()}")

    def rule(self) -> str:
        """Its values, in words."""
        if self.kind is bool:
            return "true or false"
        if self.kind in (int, float):
            whole = "whole " if self.kind is int else ""
            return f"a {whole}number from {self.low:g} to {self.high:g}"
        text = f"a text that matches {self.pattern}"
        return f"a list of texts that match {self.pattern}" if self.kind is list else text
