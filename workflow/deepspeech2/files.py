"""Files that are either whole or absent, and the hashes by which their readers know them.

What has its name is on the disk, so that a power cut leaves whole files or none.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from deepspeech2 import cli
from deepspeech2.cli import UserError

CHUNK = 1 << 16  # bytes
MAX_TEXT, MAX_BYTES = 1 << 30, 1 << 40  # of a file
SEAL = "seal"  # key of an index's hash of itself
TEXTS = {".json", ".jsonl", ".tsv", ".md", ".html"}  # what ends with a line's end
MANY = {"corpus", "features", "compiled", "dumpout", "logs", "benchmarks"}  # folders


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path):
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Like `replacing`, for a folder: it is made empty, filled in the block, then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    old = temporary.with_suffix(".old.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with naming(path):
            yield temporary
            os.sync()  # one for thousands of files
            if path.exists():
                os.replace(path, old)
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """A file in the errors of a full disk that name none: those of writing."""
    try:
        yield
    except OSError as error:
        if error.errno in cli.NO_ROOM and error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def unchanged(listed: Callable[[], Iterable[str | Path]]) -> Iterator[None]:
    """Refuse files that change, come or go while the block reads them; `listed` says which."""

    def states() -> dict[str | Path, tuple]:
        return {path: _state(os.stat(path)) for path in listed() if os.path.exists(path)}

    before = states().items()
    yield
    for path, _ in sorted(before ^ states().items(), key=str)[:1]:
        raise UserError(f"{path}: changed while it was read; run again")


def _state(about: os.stat_result) -> tuple[int, ...]:
    """What the system says of a file: something else after each change."""
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # not every file system can sync folders
            raise
    finally:
        os.close(descriptor)


def remove_torn(folder: str | Path) -> list[str]:
    """Remove files that are empty, or whose last line has no end; returns their paths.

    Such is what a power cut leaves of files that were not synced. Snakemake takes them for made.
    """
    removed = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in MANY]
        for path in (Path(place, name) for name in names if not name.startswith(".")):
            if path.is_file() and not path.is_symlink() and _is_torn(path):
                path.unlink()
                removed.append(str(path))
    return removed


def _is_torn(path: Path) -> bool:
    with open(path, "rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return path.suffix in TEXTS and file.read() != b"\n"


def _sweep(path: Path) -> None:
    """Remove what killed processes left of `path`. One that still runs has its own name there."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        found = re.fullmatch(r"\.(\d+)(\.old)?\.tmp", left.name[len(path.name) + 1 :])
        if not found:
            continue
        try:
            os.kill(int(found.group(1)), 0)
        except (ProcessLookupError, OverflowError):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        except OSError:
            continue  # it runs, as somebody else


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def write_json(path: str | Path, data: Any) -> None:
    """Write `data` as readable JSON, whole or not at all. Objects get a seal (`read_sealed`)."""
    if isinstance(data, dict):
        plain = json.loads(json.dumps(data, allow_nan=False))  # as its readers will have it
        data = {**data, SEAL: seal(plain)}
    with replacing(path) as temporary:
        text = json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def require_file(path: str | Path, most: int = MAX_BYTES) -> None:
    """Refuse what is no file of so many bytes: a pipe would be waited for, a device never ends."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path}: not a file; name one")
    if found.st_size > most:
        raise UserError(f"{path}: {found.st_size} bytes, more than {most}; name another")


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8. Raises `UserError` for all else."""
    require_file(path, MAX_TEXT)
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; convert it") from None


def parse_json(text: str, kind: Callable[[dict], Any] = dict) -> Any:
    """JSON that all readers read alike: keys twice, NaN, half characters are a `ValueError`.

    Every object of it is made a `kind`.
    """

    def made(pairs: list[tuple[str, Any]]) -> Any:
        if len(found := dict(pairs)) < len(pairs):
            raise ValueError("a key appears twice")
        return kind(found)

    data = json.loads(text, object_pairs_hook=made, parse_constant=int)
    if "\\u" in text:
        json.dumps(data, ensure_ascii=False).encode()
    return data


def read_json(path: str | Path, kind: Callable[[dict], Any] = dict) -> Any:
    """Read JSON, see `parse_json`; what is missing or broken is a `UserError` that names it."""
    text = read_text(path)
    try:
        return parse_json(text, kind)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: line {error.lineno}: broken JSON ({error.msg})") from None
    except (RecursionError, ValueError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"{path}: broken JSON ({why!s:.100})") from None


def read_sealed(path: str | Path, then: str = "") -> dict[str, Any]:
    """Read an object that `write_json` wrote. Raises `UserError` if it was altered since.

    So does asking it for a key that it lacks, as those of another version do. `then` is what to do.
    """
    then = then or remedy(path)
    return require_sealed(read_json(path, lambda data: _Sealed(data, path, then)), path, then)


class _Sealed(dict):
    def __init__(self, data: dict, path: str | Path, then: str):
        super().__init__(data)
        self.about = path, then
        cli.used[:] = path, then, None

    def __getitem__(self, key: Any) -> Any:
        cli.used[:] = *self.about, key
        return super().__getitem__(key)

    def __missing__(self, key: Any) -> Any:
        path, then = self.about
        raise UserError(f"{path}: has no {key!r}, so another version wrote it; {then}")

    def __reduce__(self) -> tuple:
        return _Sealed, (dict(self), *self.about)


def require_sealed(data: Any, path: str | Path, then: str) -> dict[str, Any]:
    """An object of `path` without its seal, refused if that does not fit; `then` is what to do."""
    given = data.pop(SEAL, None) if isinstance(data, dict) else None
    if not isinstance(data, dict) or given != seal(data):
        raise UserError(f"{path}: altered since it was written; {then}")
    return data


def seal(data: dict[str, Any]) -> str:
    """SHA-256 of an object, whatever the order of its keys and the spaces between."""
    return sha256_bytes(json.dumps(data, sort_keys=True).encode())


def require_unaltered(path: str | Path, expected: str, index: str | Path) -> None:
    """Refuse `path` unless its SHA-256 is the one that `index` recorded."""
    if not os.path.isfile(path):  # a pipe would be waited for
        raise UserError(f"{path}: missing although {index} lists it; {remedy(index)}")
    actual = sha256(path)
    if actual != expected:
        raise UserError(f"{path}: altered since {index} was written; {remedy(index)}")


def remedy(index: str | Path) -> str:
    """The command that makes `index` and what it lists anew."""
    return f"rebuild it with: snakemake --cores all --force {index}"


class Fingerprints:
    """Hashes of files' contents, kept by what the system says of each file.

    A file whose size, times and inode are those at its last reading is not read again, so that
    thousands of unchanged files cost next to nothing. `cache` may be lost at any time.
    """

    SETTLED = 2.0  # seconds after its last change from which on a file's times tell of the next

    def __init__(self, cache: Path):
        self.cache = cache
        self.known: dict[str, list] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(cache.read_text(encoding="utf-8"))
            self.known = known if isinstance(known, dict) else {}

    def of(self, paths: Iterable[str | Path], root: Path | None = None) -> str:
        """Hex SHA-256 over the paths (below `root`) and contents of files, in any order."""
        total, self._changed = hashlib.sha256(), False
        below = os.path.join(root or "", "")
        for path in sorted(map(os.fspath, paths)):
            plain = path.removeprefix(below)  # relpath takes long for a hundred thousand
            if not root:
                name = os.path.basename(path)
            else:
                name = plain if plain != path and ".." not in plain else os.path.relpath(path, root)
            total.update(f"{name}\0{self._digest(path)}\n".encode(errors="surrogateescape"))
        if self._changed:
            with contextlib.suppress(OSError):  # what cannot be kept is read again
                write_json(self.cache, {k: v for k, v in self.known.items() if os.path.exists(k)})
        return total.hexdigest()

    def _digest(self, path: str) -> str:
        key = os.path.abspath(path)
        try:
            about = os.stat(path)
            if not stat.S_ISREG(about.st_mode):  # a pipe would be read forever
                return "not a file"
            state = list(_state(about))
            if self.known.get(key, [])[:-1] == state:
                return self.known[key][-1]
            digest = sha256(path)
        except OSError as error:
            return error.strerror or "unreadable"
        if key.isprintable() and time.time() - max(state[1:3]) / 1e9 > self.SETTLED:
            self.known[key], self._changed = [*state, digest], True
        else:
            self._changed |= self.known.pop(key, None) is not None
        return digest
