"""Names of torch that the stages use which an engine's own Python runs, for torch 2.0.

    python tests/torch_names.py            the names that the sources use, one a line
    python tests/torch_names.py --verify   writes tests/torch_2_0_names.txt; run it with torch 2.0:
                                           a name that torch has not ends it with an error

The list is what CI has of torch 2.0: a test compares it with the sources.
"""

import ast
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow"))

from deepspeech2 import sources  # noqa: E402

NAMES = Path(__file__).with_name("torch_2_0_names.txt")
MODULES = [
    f"deepspeech2.{name}"
    for name in (
        *("model.torchscript", "engines.compile", "engines.infer", "engines.timing", "doctor"),
        "engines.torch_aie",
    )
]
OURS = {
    "compile",
    "index",
    "npu",
}  # names of torch's, or a stand-in's, that are something else here


def used():
    """Dotted names below torch in those sources, and names of what Tensors and Modules have."""
    methods = {*dir(torch.Tensor), *dir(torch.nn.Module), *dir(torch.jit.ScriptModule)} - OURS
    found = set()
    for path in sources.of(*MODULES):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        roots = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == "torch":
                        roots[alias.asname or "torch"] = alias.name if alias.asname else "torch"
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch"):
                for alias in node.names:
                    roots[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        if not roots:
            continue
        found |= set(roots.values())
        for node in ast.walk(tree):
            parts = []
            while isinstance(node, ast.Attribute):
                parts.append(node.attr)
                node = node.value
            if isinstance(node, ast.Name) and node.id in roots and parts:
                found.add(".".join([roots[node.id], *reversed(parts)]))
            elif parts and parts[-1] in methods:
                found.add(f"method {parts[-1]}")
    return sorted(found)


def main():
    names = used()
    if sys.argv[1:] != ["--verify"]:
        print("\n".join(names))
        return
    for name in names:
        place = torch
        if not name.startswith("method "):  # those were found in this torch
            for part in name.split(".")[1:]:
                place = getattr(place, part)
    NAMES.write_text(f"# torch {torch.__version__} has these.\n" + "\n".join(names) + "\n")


if __name__ == "__main__":
    main()
