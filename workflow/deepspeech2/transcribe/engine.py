"""A model and an engine, made ready to transcribe.

What making it costs (seconds, minutes with some engines) is spent once: what was made is kept in
the user's cache, and made anew where the checkpoint, the engine, this program or a library is
another one.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepspeech2 import configure, engines, files
from deepspeech2.cli import CORES, UserError, log
from deepspeech2.config import Checkpoint, Config
from deepspeech2.engines import Engine, Shape
from deepspeech2.features.batches import Batch
from deepspeech2.features.spectrogram import Spectrogram
from deepspeech2.model.architecture import Architecture
from deepspeech2.scoring import arpa, decoders, language_model, tuned
from deepspeech2.transcribe.segments import MOST, PER_SECOND

BATCH = 32  # pieces that are computed together
WEIGHTS, MODEL, EXPORT, ARTEFACT, INDEX = (
    *("model.safetensors", "model.json", "export", "artefact", "index.json"),
)


class Network:
    """A network on an engine: features in, posteriors out."""

    def __init__(self, engine: Engine, folder: Path):
        self.backend = engines.create(engine)
        about = files.read_sealed(folder / MODEL)
        self.labels: list[str] = about["labels"]
        self.spectrogram = Spectrogram(**about["spectrogram"])
        self.widths = widths(self.backend, self.spectrogram)
        self.backend.prepare()
        self.session = self.backend.open(folder / ARTEFACT, CORES)

    def posteriors(self, features: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Posteriors (T', classes) for each of some features (bins, T), in their order."""
        order = sorted(range(len(features)), key=lambda place: -features[place].shape[1])
        found: dict[int, np.ndarray] = {}
        for first in range(0, len(order), BATCH):
            places = order[first : first + BATCH]
            batch = self._batch(places, [features[place] for place in places])
            result = self.session.forward(self.session.upload(batch.spectrograms, batch.lengths))
            self.session.synchronize()
            probabilities, lengths = self.session.download(result)
            # A copy, or one utterance keeps what was computed of all.
            found |= {p: probabilities[n, : lengths[n]].copy() for n, p in enumerate(places)}
        yield from (found.pop(place) for place in range(len(features)))

    def _batch(self, places: list[int], features: list[np.ndarray]) -> Batch:
        longest = max(part.shape[1] for part in features)
        width = min((w for w in self.widths if w >= longest), default=longest)
        if self.backend.fixed_shapes:
            features = features + features[-1:] * (BATCH - len(features))
        spectrograms = np.zeros((len(features), 1, self.spectrogram.bins, width), np.float32)
        for row, part in enumerate(features):
            spectrograms[row, 0, :, : part.shape[1]] = part
        lengths = np.array([part.shape[1] for part in features], np.int32)
        return Batch(places, spectrograms, lengths)

    def close(self) -> None:
        """Free the device."""
        self.session.close()


def widths(backend: engines.Backend, spectrogram: Spectrogram) -> list[int]:
    """The widths in frames that batches are padded to; none where each has its own."""
    engine = backend.engine
    if not (backend.fixed_shapes or engine.buckets or engine.options.get("cuda_graphs")):
        return []
    most = spectrogram.frames(MOST * spectrogram.sample_rate // PER_SECOND)
    return sorted({most, *(bucket for bucket in engine.buckets if bucket < most)})


def engine_of(text: str) -> Engine:
    """The engine that a name in config.yaml, the name of a backend or JSON means."""
    known = _config().engines
    return _config().engine(text) if text in known else Engine.parse(text)


def checkpoint_of(name: str) -> Checkpoint:
    """The model that a name in config.yaml, or the path of a checkpoint, means."""
    known = _config().models
    if name not in known:
        if not os.path.exists(name):
            raise UserError(
                f"--model {name}: neither a file nor a model of config.yaml "
                f"({', '.join(known)}); correct it"
            )
        return Checkpoint.model_construct(checkpoint=name)  # any name that a file has
    entry = known[name]
    if entry.checkpoint and configure.is_address(entry.checkpoint):
        raise UserError(
            f"--model {name}: its checkpoint is an address; fetch {entry.checkpoint} and name the "
            "file"
        )
    return entry


def decoder_of(text: str) -> tuple[decoders.Settings, arpa.LanguageModel | None]:
    """The decoder that a name in config.yaml, a kind or JSON means, and its language model.

    A language model is built once, and kept beside the models.
    """
    config = _config()
    if text not in config.decoders:
        return decoders.Settings.parse(text), None
    entry, model, about = config.decoders[text], None, None
    if entry.language_model:
        made = config.language_models[entry.language_model]
        sources = [Path(path) for path in (*made.texts, made.arpa) if path]
        hashes = [files.sha256(path) for path in sources]
        content = json.dumps([made.model_dump(), hashes, _code()], sort_keys=True)
        name = hashlib.sha256(content.encode()).hexdigest()[:16]
        place = cache()
        if place is None:
            place = Path(tempfile.mkdtemp(prefix="deepspeech2-"))
            atexit.register(shutil.rmtree, place, True)
        folder = place / name
        paths = [folder / part for part in ("model.arpa", "model.json", "texts.txt")]
        try:
            model, about = arpa.read(paths[1])
        except UserError:  # none, or not whole
            given = [Path(path) for path in made.texts], made.arpa and Path(made.arpa)
            language_model.main(*given, made.unit, made.order, *paths)
            model, about = arpa.read(paths[1])
    settings = decoders.Settings(entry.kind, entry.options)
    return tuned.applied(settings, entry.tuning and Path(entry.tuning), about)[0], model


def _config() -> Config:
    return Config.model_validate(configure.base())


@contextlib.contextmanager
def ready(model: Checkpoint, engine: Engine | None) -> Iterator[Path]:
    """A folder with a model's weights and description, and its artefact for an engine, if any."""
    backend = engines.create(engine) if engine else None
    finding = backend.examine(engine.device) if backend else None
    if finding and finding.missing:
        raise UserError(f"--engine: {finding.missing[0]}")
    kind = json.dumps([model.model_dump(), os.getcwd(), engine and engine.text()], sort_keys=True)
    name = hashlib.sha256(kind.encode()).hexdigest()[:16]
    with contextlib.ExitStack() as stack:
        place = cache()
        if place is None:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sources = [path for path in (model.checkpoint, model.labels) if path]
        for path in sources:
            files.require_file(path)
        state = {
            "sources": files.Fingerprints(place / "fingerprints.json").of(sources),
            "code": _code(),
            "found": finding and finding.found,
        }
        folder = place / name
        if not _is_valid(folder, state):
            if sys.stderr.isatty():
                log.warning("preparing the model for this engine; the next start is faster")
            with files.replacing_folder(folder) as making:
                _make(model, backend, making)
                made = sorted(path for path in making.rglob("*") if path.is_file())
                hashes = {path.relative_to(making).as_posix(): files.sha256(path) for path in made}
                files.write_json(making / INDEX, {**state, "files": hashes})
        yield folder


def cache() -> Path | None:
    """The folder for what is kept; None where it cannot be, or others could write there, too."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(base, "deepspeech2")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.stat()
    except OSError:
        return None
    own = not hasattr(os, "getuid") or about.st_uid == os.getuid()
    closed = not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return folder if own and closed and os.access(folder, os.W_OK) else None


def _is_valid(folder: Path, state: dict[str, Any]) -> bool:
    try:
        index = files.read_sealed(folder / INDEX)
        for name, expected in index["files"].items():
            files.require_unaltered(folder / name, expected, folder / INDEX)
        return all(index[key] == value for key, value in state.items())
    except (UserError, OSError):
        return False


def _code() -> str:
    """A hash over the package's source."""
    root, total = Path(engines.__file__).parent.parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()


def _make(model: Checkpoint, backend: engines.Backend | None, folder: Path) -> None:
    """What the workflow's rules do between a checkpoint and an engine's artefact."""
    from deepspeech2.model import convert

    checkpoint = Path(model.checkpoint) if model.checkpoint else folder / "random.safetensors"
    if model.random:
        from deepspeech2.model import random_weights

        settings = model.random.fields()
        settings.pop("bidirectional")
        labels = Path(model.random.labels or configure.shipped("resources/labels.json"))
        random_weights.main(labels, checkpoint, **settings, seed=model.random.seed)
    convert.main(
        checkpoint,
        model.sha256,
        Path(model.labels) if model.labels else None,
        model.spectrogram or None,
        folder / WEIGHTS,
        folder / MODEL,
    )
    if backend is None:
        return
    about = files.read_sealed(folder / MODEL)
    spectrogram, architecture = about["spectrogram"], Architecture(**about["architecture"])
    source, export = folder / WEIGHTS, backend.engine.export
    if export.source == "torchscript":
        from deepspeech2.model import torchscript

        source = folder / EXPORT
        torchscript.main(folder / WEIGHTS, folder / MODEL, source, folder / "e.json", export.form)
    elif export.source == "onnx":
        from deepspeech2.model import onnx

        source, size = folder / EXPORT, BATCH if export.fixed else None
        onnx.main(
            *(folder / WEIGHTS, folder / MODEL, source, folder / "e.json"),
            *(export.form, export.opset, size),
        )
    backend.prepare()
    wide = widths(backend, Spectrogram(**spectrogram)) or [MOST]
    (folder / ARTEFACT).mkdir()
    shapes = [Shape(BATCH, architecture.bins, width) for width in wide]
    backend.compile(source, shapes, folder / ARTEFACT)
