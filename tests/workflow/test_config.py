"""The configuration: every fault is one line that names key, value and rule, and nothing drifts."""

import copy
import json
import re
import time

import pytest
import yaml
from conftest import ROOT
from deepspeech2 import config, engines, schema
from deepspeech2.cli import UserError
from deepspeech2.configure import base, merge
from deepspeech2.configure import complete as completed
from deepspeech2.corpus import layouts
from deepspeech2.training.run import Settings

SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.json"
MANUAL = (ROOT / "config.yaml").read_text()
DEFAULT = yaml.safe_load(MANUAL)
PARTS = (
    config.Run, config.Dataset, config.Checkpoint, config.RandomWeights, config.EngineEntry,
    config.DecoderEntry, config.LanguageModel, config.Tune, config.Score, config.Accuracy,
    config.Timing, config.Compare, config.Train,
    config.Augmentation,
)  # fmt: skip


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    """Paths of the configuration are relative to the folder in which snakemake starts."""
    monkeypatch.chdir(ROOT)


def complete(*changes, **top):
    found = {"run": {"engines": ["cpu-fp32"]}, **top}
    for keys, value in changes:
        place = found
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = value
    return completed(found)


@pytest.mark.parametrize(
    ("braces", "expected"),
    [
        ({"run": {"batch_sizes": ["1", "64"]}}, {"run": {"batch_sizes": [1, 64]}}),
        ({"timing": {"min_seconds": "2.5", "multi": "~"}}, {"timing": {"min_seconds": 2.5}}),
        ({"timing": {"max_spread": "1e-1"}}, {"timing": {"max_spread": 0.1}}),
        ({"train": {"architecture": {"bidirectional": "false"}}}, {}),
        ({"accuracy": {"threads": 2}, "archive": "Snakefile"}, {"accuracy": {"threads": 2}}),
    ],
)
def test_numbers_in_braces_on_the_command_line_are_numbers(braces, expected):
    """Snakemake leaves them text."""
    found = completed(copy.deepcopy(braces), (), braces).model_dump()
    for key, values in expected.items():
        assert {name: found[key][name] for name in values} == values


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_the_manual_in_config_yaml_is_the_models(part):
    """Keys, explanations and defaults: what config.yaml says is what the models say."""
    assert schema.manual_of(part) in MANUAL
    for name, field in part.model_fields.items():
        assert field.description, name


@pytest.mark.parametrize("backend", engines.BACKENDS)
def test_the_manual_has_every_backends_options(backend):
    if engines.backend_class(backend).options:
        assert schema.manual_of_options(backend) in MANUAL


def test_the_manual_has_the_beam_searchs_options():
    assert schema.manual_of_options("beam") in MANUAL


def test_the_schema_is_the_models():
    """Made anew by: PYTHONPATH=workflow python -m deepspeech2.schema > SCHEMA"""
    assert json.loads(SCHEMA.read_text()) == schema.schema()


def test_config_yaml_repeats_no_default():
    """A default stands once. (What a row needs to be VALID is undercut on purpose.)"""

    def check(model, data, path):
        for key, value in data.items():
            field = model.model_fields[key]
            nested = getattr(field.annotation, "model_fields", None)
            if nested is not None:
                check(field.annotation, value, f"{path}.{key}")
            elif not field.is_required() and path:
                assert value != field.default, f"{path}.{key}"

    for key in ("accuracy", "timing", "train", "compare"):
        part = DEFAULT[key]
        if key != "accuracy":  # it shows its one key
            check(config.Config.model_fields[key].annotation, part, key)
    for kind in ("datasets", "models", "engines"):
        model = {"datasets": config.Dataset, "models": config.Checkpoint}.get(
            kind, config.EngineEntry
        )
        for name, entry in DEFAULT[kind].items():
            check(model, {k: v for k, v in entry.items() if k != "random"}, f"{kind}.{name}")


@pytest.mark.parametrize(
    "path", [ROOT / "config.yaml", *sorted((ROOT / "config").glob("*.yaml"))], ids=lambda p: p.stem
)
def test_editors_find_the_schema_and_the_files_keep_it(path):
    jsonschema = pytest.importorskip("jsonschema")
    first = path.read_text().splitlines()[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first).group(1)
    assert (path.parent / named).resolve() == SCHEMA
    jsonschema.validate(yaml.safe_load(path.read_text()), json.loads(SCHEMA.read_text()))


def test_the_schema_refuses_what_the_models_refuse():
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    for content in (
        {"batchsizes": [1]},
        {"run": {"batch_sizes": [0]}},
        {"run": {"batch_sizes": [1, 1]}},
        {"engines": {"e": {"backend": "torchscript", "options": {"warp": 1}}}},
        {"engines": {"e": {"backend": "torch_aie", "options": {"need_compile": 1}}}},
        {"train": {"augmentation": {"pitch": 1}}},
        {"datasets": {"d": {"layout": "zip"}}},
    ):
        assert list(validator.iter_errors(content)), content
    good = {"engines": {"e": {"backend": "torch_aie", "options": {"soc_version": "Ascend310"}}}}
    assert not list(validator.iter_errors(good))


def test_defaults_are_filled_in():
    found = complete(engines={"a": {"backend": "torchscript"}})
    assert found.engine("a") == engines.Engine(
        "torchscript", "cpu", "fp32", "static", "longest", [], {}
    )
    assert found.engine("npu-packed").options["min_block_size"] == 3
    assert found.engine("npu-packed")[:3] == ("torch_aie", "npu:0", "fp16")
    assert found.datasets["sample"].labels == "resources/labels.json"
    assert found.models["full_random"].random.labels == "resources/labels.json"
    for governors in (None, [], ["performance", "schedutil"]):
        assert complete((["timing", "governors"], governors)).timing.governors == governors


def test_what_the_training_takes_is_configured():
    """Every setting of a run is in the configuration, and the other way round."""
    keys = set(config.Train.model_fields) - {"name", "datasets", "dev", "device", "start"}
    assert keys == set(Settings._fields)


def test_files_are_merged_over_the_base():
    found = base()
    merge(found, {"run": {"batch_sizes": [2]}, "datasets": {"an4": {"split": "train"}}})
    assert found["run"] == {**DEFAULT["run"], "batch_sizes": [2]}
    assert found["datasets"]["an4"] == {**DEFAULT["datasets"]["an4"], "split": "train"}


def test_what_the_project_names_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = complete()
    assert found.datasets["sample"].path == str(ROOT / "resources/sample/transcripts.tsv")
    assert found.engines["npu-packed"].python == str(ROOT / "profiles/ascend/python")
    (tmp_path / "mine.tsv").touch()
    own = complete((["datasets", "sample", "path"], "mine.tsv"))
    assert own.datasets["sample"].path == "mine.tsv"
    with pytest.raises(UserError, match=r"resources/sample/transcripts.tsv: no such file"):
        complete((["datasets", "sample", "path"], "resources/sample/transcripts.tsv"))


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("take #2", "take"),
        ("2024_10_10", 20241010),
        ("", None),
        ("~", None),
        ("null", None),
        ("1e3", 1000.0),
        ("yes", True),
        ("a: b", {"a": "b"}),
        ("[a]", ["a"]),
        ("2024-10-10", __import__("datetime").date(2024, 10, 10)),
        ("'quoted'", "quoted"),
        (" blank", "blank"),
    ],
)
@pytest.mark.parametrize("key", ["archive", "checkpoint", "baseline"])
def test_a_path_that_yaml_changes_is_refused(key, typed, read):
    """Snakemake hands over what YAML made of it; the command line has what was typed."""
    remedy = "--configfile" if typed else "name a path"
    for argv in (["--config", f"{key}={typed}"], [f"--config={key}={typed}"], [f"-C{key}={typed}"]):
        with pytest.raises(UserError, match=f"config: {key}: --config {key}=.*{remedy}"):
            completed({key: read}, argv)


def test_a_path_that_yaml_keeps_is_taken(tmp_path):
    (tmp_path / "a b-(1)").touch()
    path = str(tmp_path / "a b-(1)")
    found = completed({"archive": path}, ["--config", f"archive={path}"])
    assert found.datasets["sample"].path == path


BAD = [
    ((["batchsizes"], [1]), "config: batchsizes: unknown key"),
    ((["run", "batch_size"], [1]), "config: run.batch_size: unknown key"),
    ((["run", "batch_sizes"], [0]), "run.batch_sizes[0]: 0: must be greater than or equal to 1"),
    ((["run", "batch_sizes"], [1, -1]), "run.batch_sizes[1]: -1: must be greater"),
    ((["run", "batch_sizes"], ["4"]), "run.batch_sizes[0]: '4': must be a valid integer"),
    ((["run", "batch_sizes"], [1.5]), "run.batch_sizes[0]"),
    ((["run", "batch_sizes"], [True]), "run.batch_sizes[0]"),
    ((["run", "batch_sizes"], []), "run.batch_sizes"),
    ((["run", "batch_sizes"], [1, 1]), "run.batch_sizes"),
    ((["run", "batch_sizes"], 4), "run.batch_sizes: 4: must be a valid list"),
    ((["run", "engines"], ["npu"]), "run.engines: 'npu' is not defined; defined are: cpu-fp32"),
    ((["run", "datasets"], ["../x"]), "run.datasets[0]"),
    ((["engines", "cpu-fp32", "backend"], "warp"), "engines.cpu-fp32: unknown backend 'warp'"),
    ((["engines", "cpu-fp32", "device"], "tpu:0"), "engines.cpu-fp32: backend torchscript serves"),
    ((["engines", "cpu-fp32", "precision"], "fp16"), "engines.cpu-fp32: backend torchscript comp"),
    (
        (["engines", "cpu-fp32", "options"], {"a": 1}),
        "engines.cpu-fp32: backend torchscript has no",
    ),
    ((["engines", "cpu-fp32", "buckets"], [0]), "engines.cpu-fp32.buckets[0]: 0: must be greater"),
    ((["engines", "cpu-fp32", "buckets"], [9, 9]), "engines.cpu-fp32.buckets"),
    (
        (["engines", "cpu-fp32"], {"backend": "torchscript", "padding": "batch", "buckets": [9]}),
        "engines.cpu-fp32: buckets: not together with padding batch",
    ),
    ((["engines", "cpu-fp32", "speed"], 1), "engines.cpu-fp32.speed: unknown key"),
    ((["engines", "cpu-fp32", "precision"], "fp8"), "engines.cpu-fp32.precision: 'fp8'"),
    ((["engines", "a/b"], {"backend": "torchscript"}), "a/b"),
    ((["engines", "eager"], {"backend": "torchscript"}), "engines.eager: this name is reserved"),
    ((["datasets", "models"], {"layout": "an4"}), "datasets.models: this name is reserved"),
    ((["datasets", "sample", "layout"], "zip"), "datasets.sample.layout: 'zip'"),
    ((["datasets", "sample", "split"], "test"), "datasets.sample.split"),
    ((["datasets", "sample", "path"], None), "datasets.sample: needs a path or urls"),
    ((["datasets", "an4", "urls"], ["file:///x"]), "datasets.an4.urls[0]"),
    ((["models", "embedded", "sha256"], "abc"), "models.embedded.sha256"),
    (
        (["models", "embedded", "checkpoint"], None),
        "models.embedded: needs either a checkpoint or random",
    ),
    ((["models", "embedded", "random"], {}), "models.embedded: needs either a checkpoint or"),
    ((["models", "full_random", "random", "seed"], -1), "models.full_random.random.seed: -1"),
    ((["models", "full_random", "random", "layers"], 5), "random.layers: unknown key"),
    ((["train", "epoch"], 5), "train.epoch: unknown key"),
    ((["train", "datasets"], ["other"]), "train.datasets: 'other' is not defined; defined are: "),
    ((["train", "dev"], ["other"]), "train.dev: 'other' is not defined"),
    ((["train", "start"], "other"), "train.start: 'other' is not one of models"),
    ((["train", "shares"], {"sample": 0}), "train.shares.sample: 0: must be greater than 0"),
    ((["train", "shares"], {"sampel": 1}), "train.shares: 'sampel' is not defined"),
    ((["train", "spliced"], ["sampel"]), "train.spliced: 'sampel' is not defined"),
    (
        (["train", "augmentation", "snr"], [40, 10]),
        "snr: [40, 10]: 40 is more than 10",
    ),
    ((["train", "dev_utterances"], 0), "train.dev_utterances: 0"),
    ((["train", "name"], "../x"), "train.name: '../x'"),
    ((["train", "device"], "npu"), "train.device: 'npu'"),
    ((["train", "learning_rate"], 0), "train.learning_rate: 0"),
    (
        (["train", "augmentation", "speed"], [0, 1]),
        "0.0 is not from 0.2 to 5",
    ),
    ((["train", "augmentation", "speed"], [1]), "train.augmentation.speed"),
    ((["train", "augmentation", "pitch"], 1), "train.augmentation.pitch: unknown key"),
    (
        (["datasets", "sample", "split"], "test"),
        "sample.split: 'test': the layout tsv has",
    ),
    ((["timing", "multi"], 0), "timing.multi"),
    ((["timing", "min_seconds"], "ten"), "timing.min_seconds: 'ten': must be a valid number"),
    (
        (["timing", "governors"], "performance"),
        "timing.governors: 'performance': must be",
    ),
    ((["timing", "governors"], ["Performance!"]), "timing.governors[0]: 'Performance!'"),
    ((["timing", "governors"], ["--multi"]), "timing.governors[0]: '--multi'"),
    ((["timing", "governors"], [1]), "timing.governors[0]: 1"),
    ((["timing", "governor"], ["powersave"]), "timing.governor: unknown key"),
    ((["decoders", "greedy", "kind"], "best"), "decoders.greedy.kind: 'best'"),
    ((["accuracy", "threads"], 0), "accuracy.threads: 0"),
    ((["archive"], 7), "archive: 7"),
    ((["run", "batch_sizes"], [4.0]), "run.batch_sizes[0]: 4.0: must be a valid integer"),
    ((["accuracy", "threads"], 2.0), "accuracy.threads: 2.0"),
    ((["timing", "max_spread"], float("nan")), "timing.max_spread"),
    ((["timing", "min_seconds"], float("inf")), "timing.min_seconds"),
    ((["engines", "cpu-fp32", "options"], {1: 2, "a": 3}), "engines.cpu-fp32.options"),
    ((["engines", "cpu-fp32", "options"], {"a": float("inf")}), "engines.cpu-fp32.options"),
    ((["datasets", "sample", "labels"], "absent.json"), "datasets.sample.labels: absent.json"),
    ((["datasets", "sample", "published"], "absent.tsv"), "datasets.sample.published: absent"),
    ((["datasets", "table.tsv"], {"layout": "an4"}), "datasets.table.tsv: this name is reserved"),
    ((["models", "own\n"], {"checkpoint": "x"}), "models"),
    ((["models", "embedded", "checkpoint"], "a{b}.ckpt"), "models.embedded.checkpoint"),
    ((["datasets", "sample", "labels"], "{x}"), "datasets.sample.labels"),
    ((["models", "embedded", "training_texts"], "no.txt"), "embedded.training_texts: no.txt: no"),
    ((["models", "embedded", "training_texts"], "{x}"), "models.embedded.training_texts"),
    ((["models", "embedded", "training_texts"], ["a"]), "models.embedded.training_texts"),
]


@pytest.mark.parametrize(("change", "words"), BAD)
def test_faults_are_one_line_with_key_and_rule(change, words):
    with pytest.raises(UserError) as error:
        complete(change)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_overrides_replace_the_one_selected_source(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a.tgz", "c.ckpt", "texts"):
        (tmp_path / name).touch()
    found = complete((["models", "embedded", "training_texts"], "~/texts"))
    assert found.models["embedded"].training_texts == str(tmp_path / "texts")
    found = complete(archive="~/a.tgz", checkpoint=str(tmp_path / "c.ckpt"))
    assert found.datasets["sample"].path == str(tmp_path / "a.tgz")
    assert found.models["embedded"].checkpoint == str(tmp_path / "c.ckpt")
    assert found.models["an4-v3"].checkpoint == DEFAULT["models"]["an4-v3"]["checkpoint"]
    found = complete((["run", "models"], ["full_random"]), checkpoint=str(tmp_path / "c.ckpt"))
    assert found.models["full_random"].checkpoint == str(tmp_path / "c.ckpt")
    assert found.models["full_random"].random is None


def test_missing_sources_are_named_unless_not_selected():
    with pytest.raises(UserError, match="datasets.sample.path: absent.tgz: no such file"):
        complete(archive="absent.tgz")
    with pytest.raises(UserError, match="models.embedded.checkpoint: absent.ckpt: no such file"):
        complete(checkpoint="absent.ckpt")
    complete((["models", "other"], {"checkpoint": "absent.ckpt", "training_texts": "absent"}))
    # What `snakemake train` will make need not be there yet, only that.
    made = {"checkpoint": "results/training/sample/model.safetensors"}
    complete((["models", "embedded"], made))
    with pytest.raises(UserError, match="no such file"):
        complete((["models", "embedded"], made), (["train", "name"], "other"))
    with pytest.raises(UserError, match="train|needs a path or urls"):
        complete((["datasets", "empty"], {"layout": "tsv"}), (["train", "dev"], ["empty"]))


@pytest.mark.parametrize(("key", "kind"), [("archive", "datasets"), ("checkpoint", "models")])
def test_an_override_of_several_is_refused(key, kind):
    count = len(DEFAULT[kind])
    with pytest.raises(UserError, match=f"{key}: names one source, but run.{kind} selects {count}"):
        complete((["run", kind], list(DEFAULT[kind])), **{key: "x"})


@pytest.mark.parametrize("preset", sorted((ROOT / "config").glob("*.yaml")), ids=lambda p: p.stem)
def test_presets_are_valid(preset, tmp_path, monkeypatch):
    """In a folder where nothing has run yet, but what a training starts from."""
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load(preset.read_text()) or {}
    start = content.get("models", {}).get(content.get("train", {}).get("start"))
    if start:
        with pytest.raises(UserError, match="train it first"):
            completed(copy.deepcopy(content))
        for key in ("checkpoint", "training_texts"):
            (tmp_path / start[key]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / start[key]).touch()
    completed(content)


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_every_layout_is_a_module(name):
    assert set(layouts.parts(name)) <= {"train", "val", "test"}
    assert layouts.create(name, "x").source.name == "x"


def aliases(first, count, of):
    """Nested values, each of which has nine of the one before."""
    value = first
    for _ in range(count):
        value = of(value)
    return value


BOMBS = {
    "a list of lists": {"run": aliases(["x"] * 9, 9, lambda v: [v] * 9)},
    "a dict of dicts": {"train": aliases({"a": 1}, 9, lambda v: {str(n): v for n in range(9)})},
    "options": {"engines": {"cpu-fp32": {"backend": "torchscript", "options": {
        "x": aliases({"a": 1}, 30, lambda v: {"a": v, "b": v})}}}},
    "a layout": {"datasets": {"sample": {"layout": aliases([1], 20, lambda v: [v, v, v])}}},
    "many values": {"run": {"batch_sizes": list(range(200_000))}},
    "a long text": {"archive": "x" * 200_000},
    "a huge number": {"timing": {"min_seconds": 10**400}},
    "a number of a megabit": {"timing": {"min_batches": 1 << 1_000_000}},
    "threads": {"accuracy": {"threads": 10**14}},
    "warm-up": {"timing": {"warmup_batches": 10**30}},
    "passes": {"timing": {"multi": 10**12}},
    "deep": {"train": aliases({}, 5000, lambda v: {"a": v})},
}  # fmt: skip
CYCLE: dict = {"run": {}}
CYCLE["run"]["engines"] = CYCLE
BOMBS["a cycle"] = CYCLE


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_one_line_and_soon(name):
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        completed(BOMBS[name])
    assert time.monotonic() - start < 5
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("run: {decoders: [nope]}", "run.decoders: 'nope' is not defined; defined are: greedy"),
        ("decoders: {b: {kind: best}}", "decoders.b.kind: 'best': must be 'greedy' or 'beam'"),
        (
            "{decoders: {b: {kind: beam, options: {lm_path: x}}}, run: {decoders: [b]}}",
            "decoders.b: decoder beam: lm_path: name the file as an entry of language_models",
        ),
        (
            "{decoders: {b: {kind: greedy, language_model: embedded-char6}}, run: {decoders: [b]}}",
            "decoders.b: greedy uses no language model",
        ),
        (
            "{decoders: {b: {kind: beam, language_model: x}}, run: {decoders: [b]}}",
            "decoders.b.language_model: 'x' is not defined",
        ),
        (
            "{language_models: {m: {}}, decoders: {b: {kind: beam, language_model: m}}, "
            "run: {decoders: [b]}}",
            "language_models.m: needs either texts or arpa",
        ),
        (
            "{language_models: {m: {texts: [no such file]}}, "
            "decoders: {b: {kind: beam, language_model: m}}, run: {decoders: [b]}}",
            "language_models.m.texts: no such file: no such file or folder",
        ),
        (
            "{decoders: {b: {kind: beam, tuning: results/tuning/b.json}}, run: {decoders: [b]}}",
            "decoders.b.tuning: results/tuning/b.json: no such file or folder; tune first",
        ),
        ("decoders: {compiled: {kind: greedy}}", "decoders.compiled: this name is reserved"),
        ("tune: {decoder: x}", "tune.decoder: 'x' is not defined"),
        ("tune: {decoder: greedy, dataset: an4}", "tune.dataset: 'an4': its split is test; tune"),
        (
            "tune: {decoder: beam-char6, dataset: an4-val, grid: {alphas: [1]}}",
            "tune.grid: decoder beam has no option 'alphas'",
        ),
    ],
)
def test_decoders_that_cannot_be_are_refused(text, words):
    with pytest.raises(UserError) as error:
        completed(yaml.safe_load(text))
    assert str(error.value).startswith(f"config: {words}")
