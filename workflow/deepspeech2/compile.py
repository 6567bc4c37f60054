"""Compile an exported model for one engine and batch size, for every width that its batches have.

What the engine's backend makes (one file or several) goes into a folder; an index beside it holds
the SHA-256 of each file, the seconds that compiling took, and its size.
"""

from __future__ import annotations

import time
from pathlib import Path

from deepspeech2 import backends, files, stage
from deepspeech2.features import FeatureSet, widths
from deepspeech2.stage import UserError, log


def require_artefact(folder: str | Path, index: str | Path, backend: backends.Backend) -> dict:
    """The index of an artefact, after a check that it is whole and was made for this engine, here.

    Other versions than those that made it may not read it, or compute something else.
    """
    data = files.read_json(index)
    if data["engine"] != backend.engine._asdict():
        raise UserError(f"{index}: made for other settings of the engine; {files.remedy(index)}")
    before, now = data["versions"], backend.versions()
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            raise UserError(
                f"{index}: made with {name} {before.get(name)}, and here is {now.get(name)}; "
                f"{files.remedy(index)}"
            )
    for name, expected in data["files"].items():
        files.require_unaltered(Path(folder) / name, expected, index)
    return data


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--source", required=True, help="the exported model")
    parser.add_argument("--source-index", required=True, help="its index (JSON)")
    parser.add_argument("--features", required=True, help="index of the features, for the shape")
    parser.add_argument("--batch-size", type=int, required=True)
    backends.add_arguments(parser)
    parser.add_argument("--artefact", required=True, help="folder to write")
    parser.add_argument("--index", required=True, help="index to write (JSON)")
    args = stage.parse(parser, argv)

    engine = backends.from_arguments(args)
    backend = backends.create(engine)
    source = files.read_json(args.source_index)
    expected = source["weights_sha256" if backend.source == "weights" else "sha256"]
    files.require_unaltered(args.source, expected, args.source_index)
    features = FeatureSet("", args.features)  # only what the index says
    found = widths(features, args.batch_size, engine.buckets or engine.padding)
    shapes = [backends.Shape(args.batch_size, features.bins, frames) for frames in found]
    backend.prepare()
    with files.replacing_folder(args.artefact) as folder:
        start = time.perf_counter()
        notes = backend.compile(Path(args.source), shapes, folder)
        seconds = time.perf_counter() - start
        made = sorted(path for path in folder.rglob("*") if path.is_file())
        index = {
            "engine": engine._asdict(),
            "shapes": [shape._asdict() for shape in shapes],
            "notes": notes,
            "compile_seconds": round(seconds, 3),
            "bytes": sum(path.stat().st_size for path in made),
            "versions": backend.versions(),
            "files": {path.relative_to(folder).as_posix(): files.sha256(path) for path in made},
        }
    files.write_json(args.index, index)
    log.info("compiled for %d frames in %.2f s", found[-1], seconds)


if __name__ == "__main__":
    stage.run(main)
