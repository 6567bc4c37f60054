"""An engine's own interpreter needs what its backend's `packages` name, and nothing else."""

import ast
import sys
from importlib import metadata

import pytest
from deepspeech2 import engines, sources
from helpers import THIRD_PARTY, python_without
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# What an engine's own interpreter runs.
STAGES = (
    *("engines.compile", "engines.infer", "engines.timing", "engines.zeros"),
    "serving.server",
)
# Packages of the workflow, of which no engine knows.
WORKFLOW_ONLY = set(
    "pydantic yaml pandas librosa soundfile scipy matplotlib kaldialign Levenshtein snakemake"
    .split()
)  # fmt: skip


def with_dependencies(distributions):
    """The distributions and all that they require here."""
    found, waiting = set(), [canonicalize_name(name) for name in distributions]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for text in metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(requirement.name))
    return found


def modules_of(distributions):
    """Top-level modules of distributions."""
    return {
        module
        for module, names in metadata.packages_distributions().items()
        if set(map(canonicalize_name, names)) & distributions
    }


def ours(backend):
    """Source files of all that an engine's interpreter may import of this package."""
    stages = [f"deepspeech2.{stage}" for stage in STAGES]
    if engines.create(engines.complete({"backend": backend})).source == "torchscript":
        stages.append("deepspeech2.model.torchscript")
    folder = sources.PACKAGE / "engines" / backend
    inside = [f"{engines.BACKENDS[backend]}.{path.stem}" for path in folder.glob("[!_]*.py")]
    return sources.of(*stages, engines.BACKENDS[backend], *inside)


@pytest.mark.parametrize("backend", engines.BACKENDS)
def test_sources_name_no_other_package(backend):
    """Also in functions, where most of what computes is imported."""
    allowed = modules_of(set(engines.backend_class(backend).packages)) | {"deepspeech2"}
    for path in ours(backend):
        tree, names = ast.parse(path.read_text(encoding="utf-8")), set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.partition(".")[0])
        assert names - sys.stdlib_module_names <= allowed, path


@pytest.mark.parametrize("backend", engines.BACKENDS)
def test_stages_and_backend_import_no_other_package(backend):
    """Every module that any function of theirs imports, where other packages are missing."""
    allowed = modules_of(with_dependencies(engines.backend_class(backend).packages))
    missing = set(THIRD_PARTY) - allowed
    assert missing >= WORKFLOW_ONLY
    names = [
        ".".join(path.relative_to(sources.PACKAGE.parent).with_suffix("").parts)
        for path in ours(backend)
    ]
    names = [name.removesuffix(".__init__") for name in names]
    assert {"deepspeech2.engines.infer", engines.BACKENDS[backend]} < set(names)
    code = f"import importlib\nfor name in {names}:\n    importlib.import_module(name)"
    done = python_without(missing, code)
    assert done.returncode == 0, done.stderr
