"""The layout `parquet`: Hugging Face's datasets in Parquet, with the sound in them.

The column `audio` holds a recording's bytes and its name, another the text (layout
`hf_audiofolder` says which). The source is a file, or a folder of them, whose names may begin with
a part: `test-00000-of-00001.parquet`. pyarrow reads them, an optional extra.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deepspeech2.cli import UserError
from deepspeech2.corpus import audio, layouts
from deepspeech2.corpus.layouts.hf_audiofolder import TEXTS
from deepspeech2.corpus.tables import text_of
from deepspeech2.corpus.text import clean
from deepspeech2.corpus.utterance import Utterance, check_id, part_in

SUFFIX, MAGIC = ".parquet", b"PAR1"
AUDIO, SPEAKERS = "audio", ("speaker_id", "speaker", "client_id")
INSTALL = "pip install -r envs/parquet.txt"
ROWS = 16  # that are in memory at a time


class Layout(layouts.Layout):
    """See the module. An utterance's id is its recording's name, or else file and row."""

    may_have_test = True

    @classmethod
    def claims(cls, source: Path) -> str | None:
        return next((str(path) for path in _files(source) if _is_parquet(path)), None)

    def read(self, keep: layouts.Keep) -> list[Utterance]:
        found: dict[str, Utterance] = {}
        self.passed_over.clear()
        files = _files(self.source)
        stems = Counter(path.stem for path in files)
        for path in files:
            place = path.relative_to(self.source if self.source.is_dir() else path.parent)
            default = path.stem if stems[path.stem] == 1 else place.with_suffix("").as_posix()
            part = part_in((self.source.resolve().name, *place.parts))
            for number, row in enumerate(_rows(path)):
                key = self._row(f"{path}: row {number}", f"{default}_{number}", row, keep, found)
                self.official.setdefault(key, part)
        self.require_allowed()
        if not found:
            raise UserError(f"{self.source}: no recordings in it")
        return sorted(found.values())

    def _row(self, where: str, default: str, row: dict, keep, found: dict[str, Utterance]) -> str:
        """Take a row as an utterance, if it is one; returns its id."""
        held = row[AUDIO] if isinstance(row[AUDIO], dict) else {}
        data, name = held.get("bytes"), text_of(held.get("path"), AUDIO, where)
        name = Path(name).name
        key = name.removesuffix(Path(name).suffix) or default
        check_id(key, where)
        text = clean(text_of(row["text"], "text", where))
        if key in found:
            self.pass_over("duplicate", f"{where}: {key!r}")
        elif not isinstance(data, bytes):
            self.pass_over("no_audio", where)
        elif not (text or self.rules.empty_references):
            self.pass_over("empty_text", where)
        else:
            try:
                sound = _sound(data, name, where)
            except UserError as error:
                if "unreadable" not in self.rules.skip:
                    raise UserError(f"{error}, or leave it out with skip: [unreadable]") from None
                self.pass_over("unreadable", error)
                return key
            keep(key, sound)
            found[key] = Utterance(key, where, text, row["speaker"])
        return key

    def files(self) -> list[Path]:
        return layouts.regular(_files(self.source))


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted(path for path in source.rglob(f"*{SUFFIX}") if path.is_file())
    return [source] if source.suffix == SUFFIX and source.is_file() else []


def _is_parquet(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == MAGIC


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, as `audio`, `text` and `speaker`."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(f"{path}: Parquet needs pyarrow: {INSTALL}") from None
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            text = next((name for name in TEXTS if name in names), None)
            if AUDIO not in names or text is None:
                raise UserError(
                    f"{path}: needs the columns {AUDIO} and one of {', '.join(TEXTS)}; it has "
                    f"{', '.join(names):.200}"
                )
            speaker = next((name for name in SPEAKERS if name in names), None)
            columns = [name for name in (AUDIO, text, speaker) if name]
            for batch in file.iter_batches(ROWS, columns=columns):
                for row in batch.to_pylist():
                    spoken = "" if row.get(speaker) is None else str(row[speaker])
                    yield {AUDIO: row[AUDIO], "text": row[text], "speaker": spoken}
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not whole Parquet ({error!s:.200}); fetch it again") from None


def _sound(data: bytes, name: str, where: str) -> audio.Audio:
    """A recording's sound. FFmpeg's formats are told by their suffix, so the file gets its own."""
    suffix = re.search(r"\.[A-Za-z0-9]+$|$", name)[0]
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(data)
        file.flush()
        try:
            return audio.read(file.name)
        except UserError as error:
            raise UserError(str(error).replace(file.name, f"{where}, {name}")) from None
