"""Rows of the results: a row's record and, read when they are asked for, its transcripts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from deepspeech2.cli import UserError
from deepspeech2.features.parts import shard_names
from deepspeech2.files import read_json, read_sealed, require_unaltered
from deepspeech2.report import FORMAT
from deepspeech2.scoring import transcripts as transcripts_file

KEYS = ("dataset", "model", "engine", "batch_size", "decoder")  # what tells rows apart


def read_record(path: str | Path) -> dict:
    """A record. Raises `UserError` if it is missing, or of another row or version."""
    path = Path(path)
    record = read_json(path)
    folder = "/".join(path.absolute().parent.parts[-5:])
    known = record if isinstance(record, dict) else {}
    if (known.get("format"), known.get("row")) != (FORMAT, folder):
        raise UserError(
            f"{path}: not the record of {folder} that this version writes; run it again"
        )
    return read_sealed(path, "run it again")


def is_scored(record: dict) -> bool:
    """Whether the accuracy in a record means anything: not with random weights."""
    model = record["configuration"].get("model")
    return not (isinstance(model, dict) and model.get("random"))


def is_greedy(record: dict) -> bool:
    """Whether a record's decoder is the plain one, with which published figures compare."""
    return record["configuration"]["decoder"]["kind"] == "greedy"


def skipped(record: dict) -> str:
    """What of the corpus is not used: a number, and the numbers by reason."""
    found = record.get("corpus", {}).get("skipped", {})  # records of older versions have none
    reasons = ", ".join(f"{number} {reason}" for reason, number in found.items())
    return f"{sum(found.values())} skipped ({reasons})" if found else ""


def coverage(record: dict) -> str:
    """How much was scored, and what was not. What is skipped belongs to no split of the corpus."""
    count, corpus, more = record["accuracy"]["coverage"], record.get("corpus", {}), skipped(record)
    if not more:
        return "scored {scored} of {of} utterances, empty {empty}".format_map(count)
    if corpus["split"] != "all":
        text = "scored {scored} of {of} utterances, empty {empty}; {more} in all splits"
        return text.format(**count, more=more)
    of = count["of"] + sum(corpus["skipped"].values())
    text = "scored {scored} of {of} utterances: {more}, empty {empty}"
    return text.format(**{**count, "of": of}, more=more)


def dropped(record: dict) -> str:
    """Which characters of the transcripts were dropped, and how often."""
    found = record.get("corpus", {}).get("dropped", {}).items()
    parts = [
        f"{c!r} {times} time{'s' * (times > 1)} in {n} utterance{'s' * (n > 1)}"
        for c, (times, n) in found
    ]
    return f"dropped from the transcripts: {', '.join(parts)}" if parts else ""


def audio_notes(record: dict) -> str:
    """How recordings had to be changed, and how many."""
    corpus = record.get("corpus", {})
    notes = corpus.get("notes", {}).items()
    return "; ".join(f"{n} of {corpus['utterances']} recordings {note}" for note, n in notes)


def mixed(record: dict) -> str:
    """What other versions or settings from outside took part in than those that were timed."""
    timed, accuracy = record["environment"], record.get("accuracy_environment", {})
    here = {**timed.get("libraries", {}), **timed["versions"]}
    stream = record["single_stream"].get("environment", {})
    parts = [
        f"{what} by {name} {version}, speed by {name} {here[name]}"
        for what, versions in (
            ("features", accuracy.get("features_versions", {})),
            ("eager", accuracy.get("eager_versions", {})),
            ("accuracy", accuracy.get("versions", {})),
            ("single latency", stream.get("versions", {})),
        )
        for name, version in versions.items()
        if here.get(name, version) != version
    ]
    settings = {**accuracy.get("outside", {}), **timed.get("outside", {})}
    return "; ".join([*parts, *(f"with {name}={value}" for name, value in settings.items())])


def node_kind(record: dict) -> str:
    """The kind of node that timed it, in words: CPU and cores."""
    of = record["environment"]
    return f"{of.get('cpu')}, {of.get('cores')} cores"


def device_name(record: dict) -> str:
    """What its engine computed on besides the CPU, in words."""
    of = record["environment"]
    kind = of.get("device", "cpu").partition(":")[0]
    name = of["versions"].get("device", of["versions"].get("driver", ""))
    return "" if kind == "cpu" else f"{kind} {name}".strip()


def of_one_kind(nodes: Iterable[str], devices: Iterable[str]) -> bool:
    """Whether speeds may be compared: on nodes of one kind, whatever their names.

    Devices must be the same where both are of one sort: a GPU is compared with its own host.
    """
    named = {name.partition(" ")[::2] for name in devices if name}
    return len(set(nodes)) <= 1 and len(named) == len({sort for sort, _ in named})


class Row:
    """A row of the results, by its record: dataset/model/engine/bs<n>/decoder/record.json."""

    def __init__(self, path: str | Path):
        self.path, self.folder = Path(path), Path(path).parent
        self.record = read_record(path)
        self.name: str = self.record["row"]
        self.dataset, self.model, self.engine, _, self.decoder = self.name.split("/")
        self.batch_size: int = self.record["batch_size"]

    @property
    def key(self) -> dict:
        """What tells it from other rows, by column."""
        return {key: self.record[key] for key in KEYS}

    @property
    def label(self) -> str:
        """Its engine, and its decoder where that is not the plain one."""
        return self.engine if is_greedy(self.record) else f"{self.engine} {self.decoder}"

    @property
    def features(self) -> Path:
        """The index of its features."""
        return self.folder.parents[2] / "features.json"

    @property
    def posteriors(self) -> tuple[tuple[Path, ...], Path]:
        """The files of its posteriors, one for each shard, and their index."""
        base, configured = self.folder.parent, self.record["configuration"].get("dataset")
        shards = configured.get("shards", 1) if isinstance(configured, dict) else 1
        of_shards = (
            base.parents[1] / "parts" / name / Path(*base.parts[-2:]) / "posteriors.bin"
            for name in shard_names(shards)
        )
        paths = (base / "posteriors.bin",) if shards == 1 else tuple(of_shards)
        return paths, base / "posteriors.json"

    def is_scored(self) -> bool:
        """Whether its accuracy means anything."""
        return is_scored(self.record)

    def transcripts(self) -> dict[str, dict]:
        """Transcripts by utterance id, as they were scored."""
        path = self.folder / "transcripts.jsonl"
        require_unaltered(path, self.record["hashes"]["transcripts"], self.path)
        return transcripts_file.read(path)

    def alignments(self) -> dict[str, dict]:
        """Alignments by utterance id."""
        path = self.folder / "alignments.jsonl"
        expected = self.record["accuracy"]["alignments_sha256"]
        require_unaltered(path, expected, self.folder / "score.json")
        text = path.read_text(encoding="utf-8")
        return {line["id"]: line for line in map(json.loads, text.rstrip("\n").split("\n"))}


def of_speed(rows: Sequence[Any]) -> list[Any]:
    """Rows, or their records, of which each network's speed is one: the first of each decoder."""
    found: dict[tuple, Any] = {}
    for row in rows:
        key = getattr(row, "record", row)
        found.setdefault(tuple(key[k] for k in KEYS if k != "decoder"), row)
    return list(found.values())


def groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of the same dataset and model that have the same transcripts, if these mean anything."""
    found: dict[tuple, list[Row]] = {}
    for row in filter(Row.is_scored, rows):
        key = (row.dataset, row.model, row.record["hashes"]["transcripts"])
        found.setdefault(key, []).append(row)
    return list(found.values())


def where(rows: Iterable[Row]) -> str:
    """Rows in short: engines with their batch sizes."""
    sizes: dict[str, list[str]] = {}
    for row in rows:
        sizes.setdefault(row.label, []).append(str(row.batch_size))
    return "; ".join(f"{engine} at {', '.join(found)}" for engine, found in sizes.items())
