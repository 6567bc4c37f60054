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
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from deepspeech2.cli import UserError
from deepspeech2.config import Config
from deepspeech2.corpus import layouts
from deepspeech2.scoring import decoders

ROOT = Path(__file__).resolve().parents[2]
RESERVED = {
    # What stands in results/ and in results/{dataset}/{model}/.
    "datasets": set(
        "datasets models logs benchmarks figures tables README.md report.html table.tsv table.md "
        "training tuning language_models comparison.tsv comparison.md comparison.json bench.tsv "
        "export".split()
    ),
    "models": set(),
    # And in results/models/{model}/, where an engine with its own interpreter has its trace.
    "engines": set(
        "eager features features.json checkpoint model.json model.safetensors random.safetensors "
        "trusted.sha256".split()
    ),
    # And in a row's folder, results/{dataset}/{model}/{engine}/bs{batch_size}/.
    "decoders": set(
        "compiled compiled.json posteriors.bin posteriors.json timing.json times.tsv zeros.json "
        "dumpout".split()
    ),
}
# Keys of paths, in whose place the user may name a file or folder.
PATHS = {
    "datasets": ("path", "labels", "pcm_sha256", "published", "word_times"),
    "models": ("checkpoint", "labels", "training_texts"),
    "engines": ("python",),
    "decoders": ("tuning",),
    "language_models": ("texts", "arpa"),
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
    trained = [*config.train.datasets, *config.train.dev, *filter(None, [config.tune.dataset])]
    for name in config.run.models:
        model = config.models[name]
        if (model.checkpoint is None) == (model.random is None):
            raise UserError(f"config: models.{name}: needs either a checkpoint or random")
    _check_sources(config)
    _check_decoders(config)
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
                if entry.get(key):
                    entry[key] = _each(entry[key], lambda p: p if is_address(p) else shipped(p))
    return found


def _each(paths: str | list[str], change: Callable[[str], str]) -> str | list[str]:
    """A path, or each of a list, changed."""
    return [change(path) for path in paths] if isinstance(paths, list) else change(paths)


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
    if config.tune.decoder is not None:
        _require_defined("tune.decoder", config.tune.decoder, config.decoders)
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
    if dataset.perturb and dataset.perturb.speed != 1 and dataset.word_times:
        raise UserError(
            f"config: datasets.{name}.perturb.speed: moves the words, so that its word_times are "
            "wrong; set word_times: null"
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
                if not getattr(entry, key):
                    continue
                paths = _each(getattr(entry, key), os.path.expanduser)
                setattr(entry, key, paths)
                used = name in _used(config, kind) and kind != "engines"
                for path in [paths] if isinstance(paths, str) else paths:
                    if used and not (is_address(path) or is_made(path, config)):
                        _require_path(f"{kind}.{name}.{key}", path)


def _used(config: Config, kind: str) -> Iterable[str | None]:
    """Names of entries of a kind whose files must be there."""
    if kind == "language_models":
        return [config.decoders[name].language_model for name in _used(config, "decoders")]
    others = {"models": [config.train.start], "decoders": [config.tune.decoder]}
    return [*getattr(config.run, kind), *filter(None, others.get(kind, ()))]


def is_made(path: str, config: Config | None = None) -> bool:
    """Whether `snakemake train` or `snakemake tune` makes this file (as they are configured)."""
    if config is None:
        return path.startswith(("results/training/", "results/tuning/"))
    tuned = f"results/tuning/{config.tune.decoder}.json"
    return path.startswith(f"results/training/{config.train.name}/") or path == tuned


def _require_path(key: str, path: str) -> None:
    if not os.path.exists(path):
        makes = {"results/training/": "train it first, or ", "results/tuning/": "tune first, or "}
        remedy = next((text for start, text in makes.items() if path.startswith(start)), "")
        raise UserError(f"config: {key}: {path}: no such file or folder; {remedy}correct the path")


def _check_decoders(config: Config) -> None:
    """Decoders that are used fit their language models; what is tuned is the part val."""
    for name in _used(config, "decoders"):
        entry, model = config.decoders[name], config.decoders[name].language_model
        config.decoder(name)
        if model is None:
            continue
        _require_defined(f"decoders.{name}.language_model", model, config.language_models)
        if not decoders.decoder_class(entry.kind).uses_language_model:
            raise UserError(f"config: decoders.{name}: {entry.kind} uses no language model")
        if bool(config.language_models[model].texts) == bool(config.language_models[model].arpa):
            raise UserError(f"config: language_models.{model}: needs either texts or arpa")
    tune = config.tune
    if tune.decoder is None:
        return
    _require_defined("tune.dataset", tune.dataset, config.datasets)
    _require_defined("tune.model", tune.model, config.models)
    split = config.datasets[tune.dataset].split
    if split != "val":
        raise UserError(
            f"config: tune.dataset: {tune.dataset!r}: its split is {split}; tune on val, so that "
            "nothing is chosen by what is reported"
        )
    kind = config.decoders[tune.decoder].kind
    for key, values in tune.grid.items():
        for value in values:
            try:
                decoders.complete(kind, {key: value})
            except UserError as error:
                raise UserError(f"config: tune.grid: {error}") from None


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
