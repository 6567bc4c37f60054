"""Compile an exported model for one engine and batch size, for every width that its batches have,
in all parts of the set.

What the engine's backend makes (one file or several) goes into a folder; an index beside it holds
the SHA-256 of each file, the seconds that compiling took, and its size.
"""

from __future__ import annotations

import time
from pathlib import Path

from deepspeech2 import cli, engines, files
from deepspeech2.cli import Input, Output, UserError, log
from deepspeech2.engines import Engine, Export, pool
from deepspeech2.engines.artefact import require_versions
from deepspeech2.engines.verdicts import SAMPLE
from deepspeech2.features import parts
from deepspeech2.features.batches import Batches, FeatureSet


def main(
    source: Input,
    source_index: Input,
    features_index: Input,
    batch_size: int,
    engine: Engine,
    artefact: Output,
    index: Output,
    shards: int = 1,
    sample: int = SAMPLE,
) -> None:
    """Command line.

    source: the exported model
    source_index: its index (JSON)
    features_index: index of the features, for the shapes (JSON)
    batch_size: utterances in a batch
    engine: how to run the model: JSON like an entry of the configuration's engines, or the name
        of a backend
    artefact: folder to write
    index: index to write (JSON)
    shards: parts that the set is computed in
    sample: utterances that are timed of a larger set
    """
    placed = pool.place(engine)
    backend = engines.create(placed)
    exported = files.read_sealed(source_index)
    expected = exported["weights_sha256" if backend.source == "weights" else "sha256"]
    files.require_unaltered(source, expected, source_index)
    if backend.source == "onnx":
        require_export(exported, engine.export, batch_size, source_index)
    features = FeatureSet("", features_index)  # only what the index says
    sets = map(features.part, parts.computed(features.utterances, shards, sample))
    of_sets = [Batches(found, batch_size, engine.pad_to).widths() for found in sets]
    widths = sorted({width for widths in of_sets for width in widths})
    shapes = [engines.Shape(batch_size, features.bins, frames) for frames in widths]
    backend.prepare()
    now = backend.versions()
    require_versions({**now, "torch": exported.get("torch", now.get("torch"))}, now, source_index)
    with files.replacing_folder(artefact) as folder:
        start = time.perf_counter()
        notes = backend.compile(source, shapes, folder)
        seconds = time.perf_counter() - start
        made = sorted(path for path in folder.rglob("*") if path.is_file())
        content = {
            "engine": engine._asdict(),
            "shapes": [shape._asdict() for shape in shapes],
            "notes": notes,
            "compile_seconds": round(seconds, 3),
            "bytes": sum(path.stat().st_size for path in made),
            "versions": now,
            "files": {path.relative_to(folder).as_posix(): files.sha256(path) for path in made},
        }
    files.write_json(index, content)
    log.info("compiled for %d frames in %.2f s", widths[-1], seconds)


def require_export(exported: dict, export: Export, batch_size: int, index: Path) -> None:
    """Refuse an ONNX file of another form, opset or batch size than the engine's."""
    wanted = {
        "form": export.form,
        "opset": export.opset,
        "batch_size": batch_size if export.fixed else None,
    }
    for name, value in wanted.items():
        if exported[name] != value:
            raise UserError(
                f"{index}: exported with {name} {exported[name] or 'any'}, and the engine takes "
                f"{value or 'any'}; {files.remedy(index)}"
            )


if __name__ == "__main__":
    cli.run(main)
