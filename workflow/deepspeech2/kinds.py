"""Kinds of values that the configuration is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

MAX_SEED = 2**32 - 1
MOST = 1_000_000_000


def _unique(items: list) -> list:
    if len(items) != len(set(items)):
        raise ValueError("must not repeat an entry")
    return items


def _ascending(pair: list[float]) -> list[float]:
    if pair[0] > pair[1]:
        raise ValueError(f"{pair[0]:g} is more than {pair[1]:g}")
    return pair


def distinct(item: Any, **limits: int) -> Any:
    """The type of a list without repetitions."""
    field = Field(json_schema_extra={"uniqueItems": True}, **limits)
    return Annotated[list[item], AfterValidator(_unique), field]


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]
Names = distinct(Name)
Selection = distinct(Name, min_length=1)
BatchSizes = distinct(Annotated[int, Field(ge=1, le=65536)], min_length=1)
Widths = distinct(Annotated[int, Field(ge=1, le=1_000_000)], max_length=50)
Text = Annotated[str, StringConstraints(min_length=1)]
# Snakemake takes braces in the name of an input for wildcards.
FilePath = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^{}]*$")]
# Snakemake puts it into a shell's command as it is.
Image = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_./][A-Za-z0-9_.:/@+-]*$")]
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-fA-F]{64}$")]
Count = Annotated[int, Field(ge=0, le=1000)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Share = Annotated[float, Field(ge=0, le=1)]
Pair = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ascending)]
