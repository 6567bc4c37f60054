"""What compiling left for an engine: a folder and its index, checked before it is run."""

from __future__ import annotations

from pathlib import Path

from deepspeech2 import engines, files
from deepspeech2.cli import UserError


def require_artefact(folder: Path, index: Path, backend: engines.Backend, batch_size: int) -> dict:
    """The index of an artefact, after a check that it is whole and was made for this engine, here.

    Other versions than those that made it may not read it, or compute something else.
    """
    data = files.read_sealed(index)
    expected = backend.engine._asdict()
    if str(data["engine"].get("device")).endswith(":*"):  # and this is one of them
        kind = expected["device"].partition(":")[0]
        expected["device"] = f"{kind}:*"
    if data["engine"] != expected:
        raise UserError(f"{index}: made for other settings of the engine; {files.remedy(index)}")
    for shape in data["shapes"] if backend.fixed_shapes else ():
        if shape["batch_size"] != batch_size:
            raise UserError(
                f"{index}: made for the batch size {shape['batch_size']}, not {batch_size}; "
                f"{files.remedy(index)}"
            )
    require_versions(data["versions"], backend.versions(), index)
    for name, expected in data["files"].items():
        files.require_unaltered(folder / name, expected, index)
    return data


def require_versions(before: dict[str, str], now: dict[str, str], index: Path) -> None:
    """Refuse what other versions made than those that compute here."""
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            raise UserError(
                f"{index}: made with {name} {before.get(name)}, and here is {now.get(name)}; "
                f"{files.remedy(index)}"
            )
