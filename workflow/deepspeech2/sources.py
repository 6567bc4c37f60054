"""Which source files a stage is made of: an edit of one of them makes its results stale."""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# The stages whose output every run of an engine starts from.
BEFORE_A_RUN = ("deepspeech2.preprocess", "deepspeech2.export", "deepspeech2.compile")


def of(*modules: str) -> list[Path]:
    """Source files of the package that `modules` (dotted, of this package) import, sorted.

    Imports are followed through the package wherever they stand in a file, also in functions.
    """
    found: set[Path] = set()
    for module in modules:
        found |= _closure(_path(module))
    return sorted(found)


def digest(*modules: str) -> str:
    """Hex SHA-256 over the names and contents of the files that `modules` are made of."""
    total = hashlib.sha256()
    for path in of(*modules):
        name = path.relative_to(PACKAGE).as_posix().encode()
        total.update(name + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _path(module: str) -> Path:
    parts = module.split(".")
    base = PACKAGE.parent.joinpath(*parts)
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    raise ValueError(f"no module {module}")


@functools.cache
def _closure(start: Path) -> frozenset:
    found, waiting = set(), [start]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imports(path)
    return frozenset(found)


@functools.cache
def _imports(path: Path) -> list[Path]:
    """Files of the package that one file imports, with the packages that hold them."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    paths = []
    for name in names:
        parts = name.split(".")
        if parts[0] != PACKAGE.name:
            continue
        for end in range(1, len(parts) + 1):
            try:
                paths.append(_path(".".join(parts[:end])))
            except ValueError:
                break  # a name inside a module, not a module
    return paths
