"""The layout `tsv`: a table with the columns `path` and `transcript`, and `speaker` if known.

Columns are separated by tabs. Paths are relative to the table's folder, outside of which nothing is
read; an utterance's id is its path without suffix.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

from deepspeech2.cli import UserError
from deepspeech2.corpus import layouts
from deepspeech2.corpus.text import clean, id_of, inside
from deepspeech2.corpus.utterance import Utterance


class Layout(layouts.Recordings):
    """See the module."""

    def utterances(self) -> Iterator[Utterance]:
        table, root = self.source, self.source.parent
        try:
            with open(table, encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
                rows = [(reader.line_num, row) for row in reader]
        except FileNotFoundError:
            raise UserError(f"{table}: no such table") from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{table}: not a UTF-8 table with tabs ({error})") from None
        for number, row in rows:
            name, text = row.get("path"), row.get("transcript")
            if name is None or text is None:
                raise UserError(f"{table}: line {number}: needs the columns path and transcript")
            path = inside(root, name, f"{table}: line {number}")
            yield Utterance(id_of(path, root), str(path), clean(text), row.get("speaker") or "")
