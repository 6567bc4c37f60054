"""Compile an exported model for one engine and batch size.

What the engine's backend makes (one file or several) goes into a folder; an index beside it holds
the SHA-256 of each file, the seconds that compiling took, and its size.
"""

from __future__ import annotations

import time
from pathlib import Path

from deepspeech2 import backends, files, stage
from deepspeech2.stage import UserError, log


def require_artefact(folder: str | Path, index: str | Path, engine) -> dict:
    """The index of an artefact, after a check that it is whole and made for this engine."""
    data = files.read_json(index)
    if data["engine"] != engine._asdict():
        raise UserError(f"{index}: made for other settings of the engine; {files.remedy(index)}")
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
    files.require_unaltered(
        args.source, files.read_json(args.source_index)["sha256"], args.source_index
    )
    features = files.read_json(args.features)
    shape = backends.Shape(args.batch_size, features["bins"], features["frames_max"])
    with files.replacing_folder(args.artefact) as folder:
        start = time.perf_counter()
        backend.compile(Path(args.source), shape, folder)
        seconds = time.perf_counter() - start
        made = sorted(path for path in folder.rglob("*") if path.is_file())
        index = {
            "engine": engine._asdict(),
            "shape": shape._asdict(),
            "compile_seconds": round(seconds, 3),
            "bytes": sum(path.stat().st_size for path in made),
            "versions": backend.versions(),
            "files": {path.relative_to(folder).as_posix(): files.sha256(path) for path in made},
        }
    files.write_json(args.index, index)
    log.info("compiled for %s in %.2f s", shape, seconds)


if __name__ == "__main__":
    stage.run(main)
