"""The house: which folder may import which, names that agree, sizes, and where facts stand."""

import ast
import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import torch_names
from conftest import ROOT
from deepspeech2 import cli, engines, sources

WORKFLOW = ROOT / "workflow"
PACKAGE = WORKFLOW / "deepspeech2"
MODULES = {
    ".".join(path.relative_to(WORKFLOW).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
STAGES = [
    name.removeprefix("deepspeech2.")
    for name, path in MODULES.items()
    if "\n    cli.run(main)" in path.read_text()
]
# Each may import from those before it, and from itself. Those of one line do not know each other.
LEVELS = (
    {"cores"},
    {"cli"},
    {"files", "sources", "options", "outside", "node", "kinds"},
    {"machine"},
    {"corpus"},
    {"features"},
    {"model"},
    {"engines", "scoring"},
    {"serving"},
    {"report"},
    {"training"},
    {"config", "doctor", "check"},
    {"configure", "schema"},
    {"transcribe"},
)
RULES = {path.stem: path.read_text() for path in sorted((WORKFLOW / "rules").glob("*.smk"))}
# Rules whose stage has another name: several rules share it.
SHARED = {
    "fetch_corpus": "fetch", "fetch_checkpoint": "fetch", "dumpout_of": "dumpout",
    "trn_of": "trn", "ctm_of": "ctm", "choose": "tune",
}  # fmt: skip


def imported(path):
    """Modules of the package that a file imports, at its top or in its functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            parts = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            names |= parts or {node.module}
            names |= {node.module} if len(parts) < len(node.names) else set()
    return {name for name in names if name in MODULES and name != "deepspeech2"}


def level(module):
    top = module.split(".")[1]
    (number,) = (n for n, names in enumerate(LEVELS) if top in names)
    return number, top


@pytest.mark.parametrize("module", [name for name in MODULES if name != "deepspeech2"])
def test_imports_go_down(module):
    own, top = level(module)
    for name in imported(MODULES[module]):
        other, other_top = level(name)
        assert other < own or other_top == top, f"{module} imports {name}"


def test_imports_have_no_circle():
    TopologicalSorter({name: imported(path) for name, path in MODULES.items()}).prepare()


def test_only_the_configuration_needs_its_library():
    """Stages run in interpreters that lack it."""
    users = {name for name, path in MODULES.items() if "pydantic" in path.read_text()}
    assert users == {f"deepspeech2.{name}" for name in ("config", "configure", "kinds")}


def test_all_stages_are_found():
    assert len(STAGES) >= 24
    assert {"scoring.score", "engines.infer", "report.page", "training.learn"} <= set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_options_are_its_signature(stage):
    """What the rules read of the source is what the program takes, each option with its help."""
    name = f"deepspeech2.{stage}"
    __import__(name)
    parser = cli.parser_of(sys.modules[name].main)
    flags = [action.option_strings[0] for action in parser._actions[1:] if action.option_strings]
    passed = [f"--{option.replace('_', '-')}" for option in sources.options(name)]
    assert flags[: len(passed)] == passed and flags[-1] == "--log"
    assert all(action.help for action in parser._actions)


def test_rules_type_no_flag_and_no_path_twice():
    """Flags follow from names; a path is spelt in the output, log or benchmark that it is of."""
    outputs = {}
    for name, text in RULES.items():
        code = "\n".join(line.partition("# ")[0] for line in text.splitlines())
        assert not re.search(r'"[^"]*--\w', code) or name == "common", name
        for rule, body in re.findall(
            r"(?m)^(?:use rule \w+ as|rule) (\w+).*:\n((?:    .*\n|\n)+)", code
        ):
            made = body.partition("output:")[2].partition("log:")[0]
            for path in re.findall(r'"(results/[^"]+)"', made):
                assert outputs.setdefault(path, rule) == rule
            rest = body.replace(made, "")
            for path in re.findall(r'"(results/(?!logs|benchmarks)[^"]+)"', rest):
                assert rule == "single_stream" and "/bs1/" in path, f"{rule}: {path}"


def test_rules_and_stages_have_the_same_names():
    for text in RULES.values():
        for rule, body in re.findall(r"(?m)^rule (\w+):\n((?:    .*\n|\n)+)", text):
            found = re.search(r'stage\("([\w.]+)"', body)
            if found:
                module = found.group(1).rpartition(".")[2]
                assert SHARED.get(rule, rule) == module
    used = set(re.findall(r'stage\("([\w.]+)"', "".join(RULES.values())))
    assert used == set(STAGES) - {"doctor", "transcribe.__main__", "check"}


def test_the_project_is_within_its_size():
    """All lines. Whoever adds some removes others, or argues for other bounds."""
    lines = {
        path: len(path.read_text().splitlines())
        for path in (*MODULES.values(), *(WORKFLOW / "rules").glob("*.smk"))
    }
    schema = WORKFLOW / "schemas" / "config.schema.json"
    total = sum(lines.values()) + len(schema.read_text().splitlines())
    assert total <= 24_450, total
    assert max(lines.values()) <= 500, max(lines, key=lines.get)


def test_every_backend_is_complete():
    for name in engines.BACKENDS:
        engine = engines.complete({"backend": name})
        assert sources.of(engines.BACKENDS[name])
        assert engines.create(engine).source in ("torchscript", "onnx", "weights")
        assert engines.Engine.parse(engine.text()) == engine == engines.Engine.parse(name)
        finding = engines.backend_class(name).examine()
        assert finding.backend == name and json.dumps(finding._asdict())


def test_an_engines_own_python_needs_no_newer_torch_than_2_0():
    """The names of torch that its stages use stand in a list that torch 2.0 was asked for."""
    listed = torch_names.NAMES.read_text().splitlines()
    assert set(torch_names.used()) <= set(listed), "run tests/torch_names.py --verify on torch 2.0"


def test_the_package_runs_under_python_3_9():
    """Its syntax and the names that it uses of the standard library, by vermin."""
    vermin = Path(sys.executable).parent / "vermin"
    options = ["-t=3.9-", "--no-tips", "--violations"]
    result = subprocess.run([vermin, *options, PACKAGE], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
