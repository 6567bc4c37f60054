"""Makes the configuration that the workflow uses of what its user gives.

`config.yaml` at the project's root is the base; what the user configures is merged over it,
checked, and completed. Every failure is one line with the key, the value and the rule that it
breaks.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from deepspeech2.cli import UserError
from deepspeech2.config import Config
from deepspeech2.corpus import layouts

ROOT = Path(__file__).resolve().parents[2]
RESERVED = {
    # What stands in results/ and in results/{dataset}/{model}/.
    "datasets": set(
        "datasets models logs benchmarks figures tables README.md report.html table.tsv table.md "
        "training comparison.tsv comparison.md comparison.json bench.tsv".split()
    ),
    "models": set(),
    # And in results/models/{model}/, where an engine with its own interpreter has its trace.
    "engines": set(
        "eager features features.json checkpoint model.json model.safetensors random.safetensors "
        "trusted.sha256".split()
    ),
}
# Keys of paths, in whose place the user may name a file or folder.
PATHS = {
    "datasets": ("path", "labels", "pcm_sha256", "published"),
    "models": ("checkpoint", "labels", "training_texts"),
    "engines": ("python",),
}
MAX_VALUES, MAX_DEPTH, MAX_NUMBER = 100_000, 50, 100_000
NUMBER = re.compile(r"[-+]?(\d{1,18}|\d*\.\d+|\d+\.\d*)([eE][-+]?\d+)?")
HALF = re.compile("[\ud800-\udfff]")  # of a character
WORDS = {"true": True, "false": False, "null": None, "~": None}  # YAML's
OVERRIDES = {"archive": "datasets", "checkpoint": "models"}


def complete(
    given: dict[str, Any], argv: Sequence[str] = (), braces: dict[str, Any] | None = None
) -> Config:
    """The configuration that the workflow uses: `given` merged over the project's config.yaml.

    `argv` is Snakemake's command line, `braces` what its `--config` has. Raises `UserError` for the
    first fault.
    """
    require_small(given)
    merged = base()
    merge(merged, given)
    merge(merged, {k: _typed(v) for k, v in (braces or {}).items() if not isinstance(v, str)})
    check_command_line(merged, argv)
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        raise UserError(_explain(error)) from None
    _check_names(config)
    for key, kind in OVERRIDES.items():
        _override(config, key, kind)
    trained = [*config.train.datasets, *config.train.dev]
    for name in config.run.models:
        model = config.models[name]
        if (model.checkpoint is None) == (model.random is None):
            raise UserError(f"config: models.{name}: needs either a checkpoint or random")
    _check_sources(config)
    for name in dict.fromkeys((*config.run.datasets, *trained)):
        _check_dataset(config, name)
    _check_baseline(config)
    for name in config.run.engines:
        config.engine(name)
    return config


def require_small(given: Any) -> None:
    """Refuse a configuration that unfolds to more values than anybody writes, or is no Unicode.

    In YAML a few lines of aliases are billions of values, or a value that holds itself; and bytes
    of a command line that are not UTF-8 are half characters.
    """
    waiting, count = [(given, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        children = value.values() if isinstance(value, dict) else value
        if isinstance(value, (dict, list)):
            count += len(value) + 1
            waiting += ((key, depth + 1) for key in value if isinstance(value, dict))
            waiting += ((child, depth + 1) for child in children)
        if count > MAX_VALUES or depth > MAX_DEPTH:
            raise UserError(
                f"config: more than {MAX_VALUES} values, or {MAX_DEPTH} levels of them; do its "
                "aliases multiply?"
            )
        if isinstance(value, (str, int)) and not -MAX_NUMBER < _size(value) < MAX_NUMBER:
            raise UserError(f"config: a value of more than {MAX_NUMBER} characters or bits")
        if isinstance(value, str) and HALF.search(value):
            raise UserError(f"config: {value!r:.100}: not Unicode text; correct it")


def _size(value: str | int) -> int:
    return len(value) if isinstance(value, str) else value.bit_length()


def base() -> dict[str, Any]:
    """The project's config.yaml. What it names is found beside it, wherever the workflow runs."""
    found = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    for kind, keys in PATHS.items():
        for entry in found[kind].values():
            for key in keys:
                if entry.get(key) and not is_address(entry[key]):
                    entry[key] = shipped(entry[key])
    return found


def shipped(path: str) -> str:
    """A file of this project as seen from the working folder."""
    return path if Path.cwd() == ROOT else str(ROOT / path)


def merge(into: dict, other: dict) -> None:
    """Merge one configuration over another: mappings key by key, all else is replaced."""
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = copy.deepcopy(value)


def _typed(value: Any) -> Any:
    """A value of `--config`, where Snakemake leaves all that stands in braces or brackets text."""
    if isinstance(value, dict):
        return {key: _typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_typed(item) for item in value]
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return float(value) if set(value) & set(".eE") else int(value)
    return WORDS.get(value, value) if isinstance(value, str) else value


def is_address(place: str) -> bool:
    """Whether a checkpoint is to be fetched rather than read."""
    return place.startswith(("http://", "https://"))


def check_command_line(config: dict[str, Any], argv: Iterable[str]) -> None:
    """Refuse paths of `--config` that are not what was typed: Snakemake reads them as YAML."""
    for argument in argv:
        found = re.fullmatch(
            r"(?:--config=|-C)?(archive|checkpoint|baseline)=(.*)", argument, re.DOTALL
        )
        if found and config.get(found[1]) != found[2]:
            key, text = found.groups()
            if not text:
                raise UserError(f"config: {key}: --config {key}= is empty; name a path")
            raise UserError(
                f"config: {key}: --config {key}={text}: Snakemake reads this as YAML, and YAML as "
                f"{config.get(key)!r}; write {key}: {json.dumps(text)} into a file, and add "
                "--configfile FILE"
            )


def _explain(error: ValidationError) -> str:
    """The deepest of the faults in one line: key, value and rule."""
    fault = max(error.errors(include_url=False), key=lambda e: len(e["loc"]))
    where, value = [part for part in fault["loc"] if part != "[key]"], fault["input"]
    context = fault.get("ctx") or {}
    if fault["type"] in ("unknown_key", "bounds"):
        where, value = [*where, context["key"]], context.get("value")
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in where)[1:]
    rule = fault["msg"].replace("Input should be", "must be").removeprefix("Value error, ")
    if fault["type"] == "unknown_key":
        return f"config: {key}: {rule}"
    shown = repr(value) if len(repr(value)) < 100 else repr(value)[:100] + "..."
    return f"config: {key or 'top level'}: {shown}: {rule}"


def _check_names(config: Config) -> None:
    for kind, reserved in RESERVED.items():
        names = getattr(config, kind)
        for name in names:
            if name in reserved:
                raise UserError(f"config: {kind}.{name}: this name is reserved; choose another")
        for name in getattr(config.run, kind):
            _require_defined(f"run.{kind}", name, names)
    for key in ("datasets", "dev", "shares", "spliced"):
        for name in getattr(config.train, key):
            _require_defined(f"train.{key}", name, config.datasets)
    if config.train.start not in (None, *config.models):
        raise UserError(f"config: train.start: {config.train.start!r} is not one of models")


def _require_defined(key: str, name: str, names: Iterable[str]) -> None:
    if name not in names:
        raise UserError(f"config: {key}: {name!r} is not defined; defined are: {', '.join(names)}")


def _check_dataset(config: Config, name: str) -> None:
    dataset = config.datasets[name]
    if not (dataset.path or dataset.urls):
        raise UserError(f"config: datasets.{name}: needs a path or urls")
    if dataset.layout == layouts.AUTO:
        if not dataset.path:
            raise UserError(f"config: datasets.{name}.layout: auto needs a path; name the layout")
        dataset.layout = layouts.find(dataset.path)
    if dataset.split == "test" and not layouts.may_have_test(dataset.layout):
        raise UserError(
            f"config: datasets.{name}.split: 'test': the layout {dataset.layout} has no such part; "
            "use all, or train and val (every tenth speaker)"
        )
    if dataset.columns and dataset.layout != "table":
        raise UserError(f"config: datasets.{name}.columns: only for the layout table")


def _override(config: Config, key: str, kind: str) -> None:
    """`archive` and `checkpoint` replace the source of the one selected dataset or model."""
    path, selected = getattr(config, key), getattr(config.run, kind)
    if path is None:
        return
    if len(selected) > 1:
        raise UserError(
            f"config: {key}: names one source, but run.{kind} selects {len(selected)}: "
            f"{', '.join(selected)}; select one"
        )
    entry = getattr(config, kind)[selected[0]]
    changes = {"urls": [], "path": path} if key == "archive" else {key: path, "random": None}
    for name, value in changes.items():
        setattr(entry, name, value)


def _check_sources(config: Config) -> None:
    """Expand the home folder in local sources, and see that those that are used are there."""
    for entry in config.datasets.values():
        entry.labels = entry.labels or shipped("resources/labels.json")
    for model in config.models.values():
        if model.random:
            model.random.labels = model.random.labels or shipped("resources/labels.json")
    for kind, keys in PATHS.items():
        for name, entry in getattr(config, kind).items():
            for key in keys:
                path = getattr(entry, key)
                if not path or is_address(path):
                    continue
                path = os.path.expanduser(path)
                setattr(entry, key, path)
                used = name in getattr(config.run, kind) or name == config.train.start
                if kind != "engines" and used and not is_trained(path, config.train.name):
                    _require_path(f"{kind}.{name}.{key}", path)


def is_trained(path: str, name: str = "") -> bool:
    """Whether `snakemake train` makes this file (with this name)."""
    return path.startswith(f"results/training/{name}/" if name else "results/training/")


def _require_path(key: str, path: str) -> None:
    if not os.path.exists(path):
        remedy = "train it first, or correct the path" if is_trained(path) else "correct the path"
        raise UserError(f"config: {key}: {path}: no such file or folder; {remedy}")


def _check_baseline(config: Config) -> None:
    """Expand the home folder in `baseline`, and see that it is there and not our own results."""
    if config.baseline is None:
        return
    path = config.baseline = os.path.expanduser(config.baseline)
    if not os.path.isdir(path):
        raise UserError(
            f"config: baseline: {path}: no such folder; give the folder of another run's results"
        )
    if os.path.realpath(path) == os.path.realpath("results"):
        raise UserError(f"config: baseline: {path}: is this run's own folder; give a copy of it")
