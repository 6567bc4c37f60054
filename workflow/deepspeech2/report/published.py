"""Published figures, which stand beside ours where dataset and batch size match."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from deepspeech2.cli import UserError
from deepspeech2.files import read_text

Published = dict[str, dict[int, dict]]  # figures by dataset and batch size, each published_<name>


def read(tables: Mapping[str, Path]) -> tuple[Published, list[str]]:
    """Published figures of datasets' tables (TSV), and the tables' comments, which explain them."""
    found, remarks = {}, []
    for dataset, path in tables.items():
        text = read_text(path)
        try:
            frame = pd.read_csv(
                io.StringIO(text), sep="\t", comment="#", index_col="batch_size", na_values=["/"]
            ).astype(float)
            if frame.index.dtype.kind != "i" or not frame.index.is_unique:
                raise ValueError("a batch size that is no whole number, or appears twice")
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path}: not a table of numbers with a column batch_size ({reason:.200})"
            ) from None
        found[dataset] = {
            size: {f"published_{name}": value for name, value in row.items()}
            for size, row in frame.to_dict("index").items()
        }
        lines = text.splitlines()
        remarks.append(" ".join(line[1:].strip() for line in lines if line.startswith("#")))
    return found, remarks
