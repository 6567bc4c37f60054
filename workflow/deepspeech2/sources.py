"""Which source files a stage is made of, and which options its `main` has.

An edit of one of the files makes the stage's results stale. Files are parsed, not imported: torch
alone would take seconds at each start of the workflow.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def of(*modules: str) -> list[Path]:
    """Source files of the package that `modules` (dotted, of this package) import, sorted.

    Imports are followed through the package wherever they stand in a file, also in functions.
    """
    files: set[Path] = set()
    for module in modules:
        parts = module.split(".")
        for end in range(1, len(parts) + 1):  # the packages that hold it, too
            files |= _closure(_path(".".join(parts[:end])))
    return sorted(files)


@functools.cache
def digest(*modules: str) -> str:
    """Hex SHA-256 over the names and contents of the files that `modules` are made of."""
    total = hashlib.sha256()
    for path in of(*modules):
        name = path.relative_to(PACKAGE).as_posix().encode()
        total.update(name + b"\0" + _content(path))
    return total.hexdigest()


def options(module: str) -> dict[str, str]:
    """Annotations by name of the parameters of a stage's `main`, without those after `*`."""
    for node in _tree(_path(module)).body:
        if isinstance(node, ast.FunctionDef) and node.name == "main":
            return {arg.arg: ast.unparse(arg.annotation) for arg in node.args.args}
    raise ValueError(f"{module} is not a stage")


@functools.cache
def _path(module: str) -> Path:
    base = PACKAGE.parent.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    raise ValueError(f"no module {module}")


@functools.cache
def _content(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@functools.cache
def _closure(start: Path) -> frozenset:
    files, waiting = set(), [start]
    while waiting:
        path = waiting.pop()
        if path not in files:
            files.add(path)
            waiting += _imports(path)
    return frozenset(files)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """The statements in a statement, at any depth: no expression has an import in it."""
    for part in ("body", "orelse", "finalbody", "handlers", "cases"):
        for inner in getattr(node, part, ()):
            yield inner
            yield from _statements(inner)


@functools.cache
def _imports(path: Path) -> list[Path]:
    """Files of the package that one file imports, with the packages that hold them."""
    names = set()
    for node in _statements(_tree(path)):
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
