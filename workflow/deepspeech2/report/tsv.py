"""Tables as TSV, for programs, in which a spreadsheet computes nothing."""

from __future__ import annotations

import re

import pandas as pd

from deepspeech2.cli import printable

# What a spreadsheet computes (in Japan in full width, too), which are not numbers.
FORMULA = re.compile(r"(?![-+]?\d+(\.\d*)?([eE][-+]?\d+)?$)\s*[-=+@\uff1d\uff0b\uff0d\uff20]", re.A)


def for_programs(table: pd.DataFrame) -> str:
    """A table as TSV. A spreadsheet would compute texts like `=1+1`: they get an apostrophe."""
    safe = table.map(lambda v: _safe(printable(v)) if isinstance(v, str) else v)
    return safe.to_csv(sep="\t", index=False, lineterminator="\n", float_format="%.6g")


def _safe(text: str) -> str:
    return f"'{text}" if FORMULA.match(text) else text
