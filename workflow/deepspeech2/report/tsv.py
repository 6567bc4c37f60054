"""Tables as TSV, for programs, in which a spreadsheet computes nothing."""

from __future__ import annotations

import re

import pandas as pd

# What a spreadsheet computes, which are not numbers.
FORMULA = re.compile(r"(?![-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?$)\s*[-=+@]|[\t\r\n]")


def for_programs(table: pd.DataFrame) -> str:
    """A table as TSV. A spreadsheet would compute texts like `=1+1`: they get an apostrophe."""
    safe = table.map(lambda v: f"'{v}" if isinstance(v, str) and FORMULA.match(v) else v)
    return safe.to_csv(sep="\t", index=False, lineterminator="\n", float_format="%.6g")
