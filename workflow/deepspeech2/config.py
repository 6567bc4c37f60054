"""The workflow's configuration: checked against its schema, defaults filled in, overrides applied.

Every failure is one line with the key, the value and the rule that it breaks.
"""

from __future__ import annotations

import copy
import json
import math
import os
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from deepspeech2 import backends
from deepspeech2.stage import UserError

RESERVED = {
    # What stands in results/ and in results/{dataset}/{model}/.
    "datasets": set(
        "datasets models logs benchmarks figures tables README.md report.html table.tsv table.md "
        "table.html training comparison.tsv comparison.md comparison.json bench.tsv".split()
    ),
    "models": set(),
    # And in results/models/{model}/, where an engine with its own interpreter has its trace.
    "engines": set(
        "eager features features.json checkpoint model.json model.safetensors random.safetensors "
        "trusted.sha256".split()
    ),
}


def complete(config: dict[str, Any], schema_path: str | Path) -> dict[str, Any]:
    """The configuration that the workflow uses. Raises `UserError` for the first fault."""
    schema = yaml.safe_load(Path(schema_path).read_text(encoding="utf-8"))
    validator = _with_defaults(jsonschema.Draft202012Validator)(schema)
    errors = sorted(validator.iter_errors(config), key=lambda error: list(map(str, error.path)))
    if errors:
        raise UserError(_explain(min(errors, key=lambda error: -len(error.path))))
    _check_names(config)
    _override(config, "archive", "datasets")
    _override(config, "checkpoint", "models")
    for name in config["run"]["datasets"]:
        _check_dataset(config, name)
        dataset = config["datasets"][name]
        if dataset["layout"] != "an4" and dataset["split"] == "test":
            raise UserError(
                f"config: datasets.{name}.split: 'test': only the layout an4 has such a part; use "
                "all, or train and val (every tenth speaker)"
            )
    for name in config["run"]["models"]:
        if (config["models"][name]["checkpoint"] is None) == (
            config["models"][name]["random"] is None
        ):
            raise UserError(f"config: models.{name}: needs either a checkpoint or random")
    _check_training(config)
    _check_sources(config)
    _check_baseline(config)
    for name in config["engines"]:
        try:
            config["engines"][name] = _complete_engine(name, config["engines"][name])
        except UserError:  # one that is not selected disturbs only whoever uses it
            if name in config["run"]["engines"]:
                raise
    return config


def _with_defaults(validator_class):
    """The validator, made to fill in the `default` of every property before it checks them."""
    check_properties = validator_class.VALIDATORS["properties"]

    def fill(validator, properties, instance, schema):
        if isinstance(instance, dict):
            for name, subschema in properties.items():
                if "default" in subschema:
                    instance.setdefault(name, copy.deepcopy(subschema["default"]))
        yield from check_properties(validator, properties, instance, schema)

    # JSON Schema takes 4.0 for an integer, and YAML has infinity: neither is meant here.
    types = validator_class.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: type(value) is int,
            "number": lambda _, value: type(value) in (int, float) and math.isfinite(value),
        }
    )
    return jsonschema.validators.extend(validator_class, {"properties": fill}, type_checker=types)


def _explain(error: jsonschema.ValidationError) -> str:
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path)[1:]
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = error.schema.get("properties", {})
        unknown = next((name for name in error.instance if name not in known), None)
        where = f"{key}.{unknown}" if key else unknown
        return f"config: {where}: unknown key; known here are: {', '.join(known)}"
    message = error.message if len(error.message) < 300 else error.message[:300] + "..."
    return f"config: {key or 'top level'}: {message}"


def _check_names(config: dict[str, Any]) -> None:
    for kind, reserved in RESERVED.items():
        for name in config[kind]:
            if name in reserved:
                raise UserError(f"config: {kind}.{name}: this name is reserved; choose another")
        for name in config["run"][kind]:
            if name not in config[kind]:
                raise UserError(
                    f"config: run.{kind}: {name!r} is not defined; defined are: "
                    f"{', '.join(config[kind])}"
                )


def _check_dataset(config: dict[str, Any], name: str) -> None:
    if not (config["datasets"][name]["path"] or config["datasets"][name]["urls"]):
        raise UserError(f"config: datasets.{name}: needs a path or urls")


def _complete_engine(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """An engine's entry, checked by its backend, with the backend's own where it names nothing."""
    if entry["python"] is not None:
        entry["python"] = os.path.expanduser(entry["python"])
    try:
        json.dumps(entry["options"], allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise UserError(f"config: engines.{name}.options: no plain settings ({error})") from None
    if entry["buckets"] and entry["padding"] == "batch":
        raise UserError(f"config: engines.{name}.buckets: not together with padding batch")
    try:
        entry = backends.completed(entry)
        settings = {key: entry[key] for key in backends.Engine._fields}
        backends.create(backends.Engine(**settings))
    except UserError as error:
        raise UserError(f"config: engines.{name}: {error}") from None
    return entry


def _check_training(config: dict[str, Any]) -> None:
    train = config["train"]
    for key in ("datasets", "dev", "shares", "spliced"):
        for name in train[key]:
            if name not in config["datasets"]:
                raise UserError(
                    f"config: train.{key}: {name!r} is not defined; defined are: "
                    f"{', '.join(config['datasets'])}"
                )
    if train["start"] not in (None, *config["models"]):
        raise UserError(f"config: train.start: {train['start']!r} is not one of models")
    for name in (*train["datasets"], *train["dev"]):
        _check_dataset(config, name)
        entry = config["datasets"][name]
        for place in ("path", "labels", "pcm_sha256"):
            entry[place] = entry[place] and os.path.expanduser(entry[place])
    for key in ("speed", "snr"):
        low, high = train["augmentation"][key]
        if low > high:
            raise UserError(f"config: train.augmentation.{key}: {low} is more than {high}")


def is_address(place: str) -> bool:
    """Whether a checkpoint is to be fetched rather than read."""
    return place.startswith(("http://", "https://"))


def _check_sources(config: dict[str, Any]) -> None:
    """Expand the home folder in the selected local sources, and see that they are there."""
    places = [(f"datasets.{n}", config["datasets"][n], "path") for n in config["run"]["datasets"]]
    places += [
        (f"datasets.{n}", config["datasets"][n], key)
        for n in config["run"]["datasets"]
        for key in ("labels", "pcm_sha256", "published")
    ]
    models = [*config["run"]["models"], *filter(None, [config["train"]["start"]])]
    places += [
        (f"models.{n}", config["models"][n], key)
        for n in models
        for key in ("checkpoint", "training_texts")
    ]
    folder = f"results/training/{config['train']['name']}/"
    for name, entry, key in places:
        if entry[key] and entry[key].startswith(folder):
            continue  # what `snakemake train` makes
        if entry[key] and not (key == "checkpoint" and is_address(entry[key])):
            entry[key] = os.path.expanduser(entry[key])
            if not os.path.exists(entry[key]):
                trained = entry[key].startswith("results/training/")
                remedy = "train it first, or correct the path" if trained else "correct the path"
                raise UserError(
                    f"config: {name}.{key}: {entry[key]}: no such file or folder; {remedy}"
                )


def _check_baseline(config: dict[str, Any]) -> None:
    """Expand the home folder in `baseline`, and see that it is there and not our own results."""
    if config["baseline"] is None:
        return
    path = config["baseline"] = os.path.expanduser(config["baseline"])
    if not os.path.isdir(path):
        raise UserError(
            f"config: baseline: {path}: no such folder; give the folder of another run's results"
        )
    if os.path.realpath(path) == os.path.realpath("results"):
        raise UserError(f"config: baseline: {path}: is this run's own folder; give a copy of it")


def _override(config: dict[str, Any], key: str, kind: str) -> None:
    """`archive` and `checkpoint` replace the source of the one selected dataset or model."""
    path = config[key]
    if path is None:
        return
    selected = config["run"][kind]
    if len(selected) > 1:
        raise UserError(
            f"config: {key}: names one source, but run.{kind} selects {len(selected)}: "
            f"{', '.join(selected)}; select one"
        )
    entry = config[kind][selected[0]]
    if key == "archive":
        entry["urls"], entry["path"] = [], path
    else:
        entry["checkpoint"], entry["random"] = path, None
