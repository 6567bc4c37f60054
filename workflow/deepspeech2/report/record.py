"""Put everything about a row of the table into one record: configuration, environment, results.

The record alone says what was run, on what, with which code and data, and what came out. Table,
report and comparisons read records and nothing else of a row but its transcripts.
"""

from __future__ import annotations

import re
from collections import Counter

from deepspeech2 import cli
from deepspeech2.cli import Input, Output, Settings, UserError, log
from deepspeech2.corpus import OTHER
from deepspeech2.files import read_sealed, write_json
from deepspeech2.report import FORMAT

# What of a timing file is not a figure but belongs elsewhere in the record.
ABOUT = (
    "engine environment versions settings checkpoint checkpoint_sha256 parameters manifest "
    "dataset_sha256 code_sha256 batch_size"
).split()


def of_split(index: dict, split: str) -> dict:
    """What a corpus's index tells of a split: its utterances and how many of them were changed.

    What is skipped belongs to no split.
    """
    used = [u for u in index["utterances"] if split in ("all", u["split"])]
    notes = Counter(note for utterance in used for note in utterance.get("notes", ()))
    skipped = {k: v for k, v in index["passed_over"].items() if k != OTHER}
    return {
        "layout": index["layout"],
        "split": split,
        "utterances": len(used),
        "skipped": skipped,
        "other_files": index["passed_over"].get(OTHER, 0),
        "notes": dict(notes.most_common()),
    }


def compose(row: str, configuration: dict, parts: dict[str, dict]) -> dict:
    """The record of a row, from the contents of the files that `main` names, by those names."""
    named = re.fullmatch(r"([^/]+)/([^/]+)/([^/]+)/bs([1-9][0-9]*)/([^/]+)", row)
    if not named:
        raise UserError(f"--row {row}: not dataset/model/engine/bs<batch size>/decoder")
    dataset, model, engine, batch_size, decoder = named.groups()
    offline, stream, agreed = parts["timing"], parts["single_stream"], parts["agreement"]
    accuracy, features = parts["score"], parts["features_index"]
    run, decoded = parts["posteriors_index"]["run"], parts["transcripts_index"]
    split = configuration.get("dataset", {}).get("split", "all")
    content = {
        "format": FORMAT,
        "row": row,
        "dataset": dataset,
        "model": model,
        "engine": engine,
        "batch_size": int(batch_size),
        "decoder": decoder,
        "configuration": {
            **configuration,
            "engine": offline["engine"],
            "decoder": {
                **decoded["decoder"],
                "language_model": decoded["language_model"],
                "tuning": decoded["tuning"],
            },
        },
        "environment": {**offline["environment"], "versions": offline["versions"]},
        "accuracy_environment": {
            **{key: run[key] for key in ("threads", "versions", "outside")},
            **{key: run.get(key) for key in ("node", "cpu", "device")},
            "eager_versions": agreed["eager_versions"],
            "features_versions": features["versions"],
        },
        "hashes": {
            "checkpoint": offline["checkpoint_sha256"],
            "dataset": offline["dataset_sha256"],
            "features": run["features_sha256"],
            "transcripts": accuracy["transcripts_sha256"],
            "timing_code": offline["code_sha256"],
            "accuracy_code": run["code_sha256"],
        },
        "checkpoint": offline["checkpoint"],
        "parameters": offline["parameters"],
        "manifest": offline["manifest"],
        "corpus": {
            **of_split(parts["corpus_index"], split),
            "dropped": features["dropped"],
        },
        "accuracy": accuracy,
        "agreement": {key: value for key, value in agreed.items() if key != "eager_versions"},
        "offline": {key: value for key, value in offline.items() if key not in ABOUT},
        "decoding": dict(parts["decoding_time"]),
        "single_stream": {
            # Measured once for all batch sizes, so maybe with other threads or versions than this.
            "environment": {**stream["environment"], "versions": stream["versions"]},
            **{key: value for key, value in stream.items() if key not in ABOUT},
        },
    }
    if "zeros" in parts:
        content["zeros"] = dict(parts["zeros"])
    if "server" in parts:
        served = parts["server"]
        content["server"] = {
            "code_sha256": served["code_sha256"],
            "environment": {**served["environment"], "versions": served["versions"]},
            **{key: value for key, value in served.items() if key not in ABOUT},
        }
    return content


def main(
    score: Input,
    agreement: Input,
    timing: Input,
    posteriors_index: Input,
    transcripts_index: Input,
    decoding_time: Input,
    corpus_index: Input,
    features_index: Input,
    single_stream: Input,
    row: str,
    configuration: Settings,
    record: Output,
    zeros: Input | None = None,
    server: Input | None = None,
) -> None:
    """Command line.

    score: the row's accuracy (JSON)
    agreement: its agreement with the eager reference (JSON)
    timing: its speed (JSON)
    posteriors_index: index of its posteriors (JSON)
    transcripts_index: index of its transcripts (JSON)
    decoding_time: how long its decoder takes (JSON)
    corpus_index: index of its corpus (JSON)
    features_index: index of its features (JSON)
    single_stream: its engine's speed with one utterance at a time (JSON)
    row: dataset/model/engine/bs<batch size>/decoder
    configuration: what was configured (JSON)
    record: record to write (JSON)
    zeros: its speed with zeros by the vendor's program, where its engine has that (JSON)
    server: the rate of arrivals that its engine and decoder hold, where that was measured (JSON)
    """
    paths = {
        "score": score,
        "agreement": agreement,
        "timing": timing,
        "posteriors_index": posteriors_index,
        "transcripts_index": transcripts_index,
        "decoding_time": decoding_time,
        "corpus_index": corpus_index,
        "features_index": features_index,
        "single_stream": single_stream,
        **({"zeros": zeros} if zeros else {}),
        **({"server": server} if server else {}),
    }
    parts = {name: read_sealed(path) for name, path in paths.items()}
    write_json(record, compose(row, configuration, parts))
    log.info("%s", row)


if __name__ == "__main__":
    cli.run(main)
