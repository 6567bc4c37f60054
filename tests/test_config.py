"""The configuration: every fault is one line that names key and rule."""

import copy

import pytest
import yaml
from conftest import ROOT
from deepspeech2 import config, learner, timing
from deepspeech2.stage import UserError

SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    """Paths of the configuration are relative to the folder in which snakemake starts."""
    monkeypatch.chdir(ROOT)


# What the embedded model was trained with.
AUGMENTATION = {
    "speed": [0.87, 1.15], "gain": 6, "noise": 0.5, "snr": [10, 40], "vocal_tract": 0.08,
    "frequency_masks": 2, "frequency_width": 24, "time_masks": 2, "time_width": 20,
}  # fmt: skip


def complete(*changes, **top):
    found = copy.deepcopy(DEFAULT)
    found["run"]["engines"] = ["cpu-fp32"]  # the entry that spells everything out
    found.update(top)
    for keys, value in changes:
        place = found
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
    return config.complete(found, SCHEMA)


def test_the_default_configuration_is_complete():
    """config.yaml is the manual: it names every top-level key, and the schema describes all."""
    found = complete()
    schema = yaml.safe_load(SCHEMA.read_text())
    assert set(DEFAULT) == set(schema["properties"]) == set(found)
    assert set(DEFAULT["timing"]) == set(schema["properties"]["timing"]["properties"])
    text = (ROOT / "config.yaml").read_text()
    for kind in ("datasets", "models", "engines"):
        for key in schema["properties"][kind]["additionalProperties"]["properties"]:
            assert key in text, f"config.yaml does not explain {kind}.{key}"


def test_defaults_are_filled_in_and_not_shared():
    engines = {name: {"backend": "torchscript"} for name in ("a", "cpu-fp32")}
    found = complete(engines=engines)
    assert found["engines"]["a"] == {
        "backend": "torchscript",
        "device": "cpu",  # from here on, what its backend has
        "precision": "fp32",
        "form": "static",
        "padding": "longest",
        "buckets": [],
        "python": None,
        "options": {},
    }
    assert found["engines"]["a"]["options"] is not found["engines"]["cpu-fp32"]["options"]
    minimal = {key: DEFAULT[key] for key in ("run", "datasets", "models", "engines")}
    found = config.complete(copy.deepcopy(minimal), SCHEMA)
    assert found["timing"] == {
        "warmup_batches": 5, "min_batches": 10, "min_seconds": 10, "multi": None,
        "max_spread": 0.2, "max_other_load": 0.1, "governors": ["performance"],
    }  # fmt: skip
    # These are what makes a row VALID, and the stage's own defaults.
    assert found["timing"]["governors"] == list(timing.GOVERNORS)
    for key in ("warmup_batches", "min_batches", "min_seconds", "max_spread", "max_other_load"):
        assert found["timing"][key] == getattr(timing, key.upper())
    models = {"embedded": {"checkpoint": DEFAULT["models"]["embedded"]["checkpoint"]}}
    assert complete(models=models)["models"]["embedded"]["training_texts"] is None
    train = found["train"]
    assert train["augmentation"] == AUGMENTATION
    for key, value in learner.Settings._field_defaults.items():
        assert train[key] == (list(value) if isinstance(value, tuple) else value), key
    for governors in (None, [], ["performance", "schedutil"]):
        assert complete((["timing", "governors"], governors))["timing"]["governors"] == governors


def test_every_key_of_the_schema_is_described_and_closed():
    def check(node, path):
        if node.get("type") == "object" and "properties" in node:
            assert node.get("additionalProperties") is False, path
        for name, value in node.get("properties", {}).items():
            assert value.get("description"), f"{path}.{name}"
            check(value, f"{path}.{name}")
        if isinstance(node.get("additionalProperties"), dict):
            check(node["additionalProperties"], f"{path}.*")

    check(yaml.safe_load(SCHEMA.read_text()), "")


BAD = [
    ((["batchsizes"], [1]), "config: batchsizes: unknown key"),
    ((["run", "batch_size"], [1]), "config: run.batch_size: unknown key"),
    ((["run", "batch_sizes"], [0]), "run.batch_sizes[0]: 0 is less than the minimum of 1"),
    ((["run", "batch_sizes"], [1, -1]), "run.batch_sizes[1]: -1 is less"),
    ((["run", "batch_sizes"], ["4"]), "run.batch_sizes[0]: '4' is not of type 'integer'"),
    ((["run", "batch_sizes"], [1.5]), "run.batch_sizes[0]"),
    ((["run", "batch_sizes"], [True]), "run.batch_sizes[0]"),
    ((["run", "batch_sizes"], []), "run.batch_sizes"),
    ((["run", "batch_sizes"], [1, 1]), "run.batch_sizes"),
    ((["run", "batch_sizes"], 4), "run.batch_sizes: 4 is not of type 'array'"),
    ((["run", "engines"], ["npu"]), "run.engines: 'npu' is not defined; defined are: cpu-fp32"),
    ((["run", "datasets"], ["../x"]), "run.datasets[0]"),
    ((["engines", "cpu-fp32", "backend"], "warp"), "engines.cpu-fp32: unknown backend 'warp'"),
    ((["engines", "cpu-fp32", "device"], "npu:0"), "engines.cpu-fp32: backend torchscript serves"),
    ((["engines", "cpu-fp32", "precision"], "fp16"), "engines.cpu-fp32: backend torchscript comp"),
    (
        (["engines", "cpu-fp32", "options"], {"a": 1}),
        "engines.cpu-fp32: backend torchscript has no",
    ),
    ((["engines", "cpu-fp32", "buckets"], [0]), "engines.cpu-fp32.buckets[0]: 0 is less than"),
    ((["engines", "cpu-fp32", "buckets"], [9, 9]), "engines.cpu-fp32.buckets"),
    (
        (["engines", "cpu-fp32"], {"backend": "torchscript", "padding": "batch", "buckets": [9]}),
        "engines.cpu-fp32.buckets: not together with padding batch",
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
    ((["models", "embedded"], {}), "models.embedded: needs either a checkpoint or random"),
    ((["models", "embedded", "random"], {}), "models.embedded: needs either a checkpoint or"),
    ((["models", "full_random", "random", "seed"], -1), "models.full_random.random.seed: -1"),
    ((["models", "full_random", "random", "layers"], 5), "random.layers: unknown key"),
    ((["train", "epoch"], 5), "train.epoch: unknown key"),
    ((["train", "datasets"], ["other"]), "train.datasets: 'other' is not defined; defined are: "),
    ((["train", "dev"], ["other"]), "train.dev: 'other' is not defined"),
    ((["train", "start"], "other"), "train.start: 'other' is not one of models"),
    ((["train", "shares"], {"sample": 0}), "train.shares.sample: 0 is less than or equal"),
    ((["train", "shares"], {"sampel": 1}), "train.shares: 'sampel' is not defined"),
    ((["train", "spliced"], ["sampel"]), "train.spliced: 'sampel' is not defined"),
    ((["train", "augmentation", "snr"], [40, 10]), "train.augmentation.snr: 40 is more than 10"),
    ((["train", "dev_utterances"], 0), "train.dev_utterances: 0"),
    ((["train", "name"], "../x"), "train.name: '../x'"),
    ((["train", "device"], "npu"), "train.device: 'npu'"),
    ((["train", "learning_rate"], 0), "train.learning_rate: 0"),
    ((["train", "augmentation", "speed"], [0, 1]), "train.augmentation.speed[0]: 0"),
    ((["train", "augmentation", "speed"], [1]), "train.augmentation.speed"),
    ((["train", "augmentation", "pitch"], 1), "train.augmentation.pitch: unknown key"),
    ((["datasets", "sample", "split"], "test"), "datasets.sample.split: 'test': only the layout"),
    ((["timing", "multi"], 0), "timing.multi"),
    ((["timing", "min_seconds"], "ten"), "timing.min_seconds: 'ten' is not of type 'number'"),
    ((["timing", "governors"], "performance"), "timing.governors: 'performance' is not of type"),
    ((["timing", "governors"], ["Performance!"]), "timing.governors[0]: 'Performance!'"),
    ((["timing", "governors"], ["--multi"]), "timing.governors[0]: '--multi'"),
    ((["timing", "governors"], [1]), "timing.governors[0]: 1"),
    ((["timing", "governor"], ["powersave"]), "timing.governor: unknown key"),
    ((["decoder", "name"], "beam"), "decoder.name: 'beam'"),
    ((["accuracy", "threads"], 0), "accuracy.threads: 0"),
    ((["archive"], 7), "archive: 7"),
    ((["run", "batch_sizes"], [4.0]), "run.batch_sizes[0]: 4.0 is not of type 'integer'"),
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
    (tmp_path / "a.tgz").touch()
    (tmp_path / "c.ckpt").touch()
    (tmp_path / "texts").touch()
    found = complete((["models", "embedded", "training_texts"], "~/texts"))
    assert found["models"]["embedded"]["training_texts"] == str(tmp_path / "texts")
    found = complete(archive="~/a.tgz", checkpoint=str(tmp_path / "c.ckpt"))
    assert found["datasets"]["sample"]["path"] == str(tmp_path / "a.tgz")
    assert found["models"]["embedded"]["checkpoint"] == str(tmp_path / "c.ckpt")
    assert found["models"]["an4-v3"] == {**DEFAULT["models"]["an4-v3"], "random": None}
    found = complete((["run", "models"], ["full_random"]), checkpoint=str(tmp_path / "c.ckpt"))
    assert found["models"]["full_random"]["checkpoint"] == str(tmp_path / "c.ckpt")
    assert found["models"]["full_random"]["random"] is None


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
    with pytest.raises(UserError, match=f"{key}: names one source, but run.{kind} selects 3"):
        complete((["run", kind], list(DEFAULT[kind])), **{key: "x"})


@pytest.mark.parametrize("preset", sorted((ROOT / "config").glob("*.yaml")), ids=lambda p: p.stem)
def test_presets_are_valid(preset, tmp_path, monkeypatch):
    """In a checkout where nothing has run yet, but what a training starts from."""
    from snakemake.utils import update_config

    monkeypatch.chdir(tmp_path)
    (tmp_path / "resources").symlink_to(ROOT / "resources")
    found = copy.deepcopy(DEFAULT)
    update_config(found, yaml.safe_load(preset.read_text()))
    start = found["models"].get(found["train"]["start"])
    if start:
        with pytest.raises(UserError, match="train it first"):
            config.complete(copy.deepcopy(found), SCHEMA)
        for key in ("checkpoint", "training_texts"):
            (tmp_path / start[key]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / start[key]).touch()
    config.complete(found, SCHEMA)
