"""Put everything about a row of the table into one record: configuration, environment, results.

The record alone says what was run, on what, with which code and data, and what came out. Table,
report and comparisons read records and nothing else of a row but its transcripts.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from deepspeech2 import stage
from deepspeech2.files import read_json, write_json
from deepspeech2.stage import UserError, log

FORMAT = 1  # of the record
# What of a timing file is not a figure but belongs elsewhere in the record.
ABOUT = (
    "engine environment versions settings checkpoint checkpoint_sha256 parameters manifest "
    "dataset_sha256 code_sha256 batch_size"
).split()


def record(row: str, configuration: dict, folder: Path, single_stream: Path) -> dict:
    """The record of a row, from the files in its folder and its engine's single-stream figures.

    `row` is dataset/model/engine/bs<batch size>.
    """
    score, timing, stream = (
        read_json(path) for path in (folder / "score.json", folder / "timing.json", single_stream)
    )
    run = read_json(folder / "posteriors.json")["run"]
    named = re.fullmatch(r"([^/]+)/([^/]+)/([^/]+)/bs([1-9][0-9]*)", row)
    if not named:
        raise UserError(f"--row {row}: not dataset/model/engine/bs<batch size>")
    dataset, model, engine, batch_size = named.groups()
    return {
        "format": FORMAT,
        "row": row,
        "dataset": dataset,
        "model": model,
        "engine": engine,
        "batch_size": int(batch_size),
        "configuration": {**configuration, "engine": timing["engine"]},
        "environment": {**timing["environment"], "versions": timing["versions"]},
        "accuracy_environment": {key: run[key] for key in ("threads", "versions")},
        "hashes": {
            "checkpoint": timing["checkpoint_sha256"],
            "dataset": timing["dataset_sha256"],
            "features": run["features_sha256"],
            "transcripts": score["transcripts_sha256"],
            "timing_code": timing["code_sha256"],
            "accuracy_code": run["code_sha256"],
        },
        "checkpoint": timing["checkpoint"],
        "parameters": timing["parameters"],
        "manifest": timing["manifest"],
        "accuracy": score,
        "agreement": read_json(folder / "agreement.json"),
        "offline": {key: value for key, value in timing.items() if key not in ABOUT},
        "single_stream": {
            # Measured once for all batch sizes, so maybe with other threads or versions than this.
            "environment": {**stream["environment"], "versions": stream["versions"]},
            **{key: value for key, value in stream.items() if key not in ABOUT},
        },
    }


def is_scored(found: dict) -> bool:
    """Whether the accuracy in a record means anything: not with random weights."""
    model = found["configuration"].get("model")
    return not (isinstance(model, dict) and model.get("random"))


def read(results: str | Path, row: str) -> dict:
    """The record of a row of a folder of results; raises `UserError` if there is none."""
    path = Path(results) / row / "record.json"
    found = read_json(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT or found.get("row") != row:
        raise UserError(f"{path}: not the record of {row} that this version writes; run it again")
    return found


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--row", required=True, help="dataset/model/engine/bs<batch size>")
    parser.add_argument("--folder", required=True, help="folder of the row's results")
    parser.add_argument("--single-stream", required=True, help="the engine's figures (JSON)")
    parser.add_argument(
        "--configuration", type=json.loads, default="{}", help="what was configured (JSON)"
    )
    parser.add_argument("--record", required=True, help="record to write (JSON)")
    args = stage.parse(parser, argv)

    found = record(args.row, args.configuration, Path(args.folder), Path(args.single_stream))
    write_json(args.record, found)
    log.info("%s", args.row)


if __name__ == "__main__":
    stage.run(main)
