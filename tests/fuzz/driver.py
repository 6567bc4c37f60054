"""Damages what every reader reads, many times, and finds what it should not do.

python tests/fuzz/driver.py [--cases N] [--seed N] [--keep FOLDER] [READER ...]

Each case is read to the same value or another, or refused in one line. A finding is a traceback, a
crash, more than SECONDS or BYTES, a call of a program, a file that is written elsewhere or left,
and, of what has a hash or a length to know it by, another value without a word.
"""

import argparse
import collections
import contextlib
import functools
import importlib.util
import json
import logging
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random
from typing import NamedTuple

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent / "workflow"), str(TESTS / "fuzz")]

import numpy as np  # noqa: E402
from deepspeech2.cli import MAX_MESSAGE, UserError, progress  # noqa: E402
from mutators import CANARY  # noqa: E402
from readers import READERS, Reader  # noqa: E402

SECONDS, BYTES = 5, 500 << 20  # of a case
HANG = 4 * SECONDS  # seconds after which a child that does not hear its alarm is killed
FINDINGS = ("traceback", "crash", "slow", "memory", "no line", "escape", "left over", "changed")


class TooSlow(BaseException):
    """Not an `Exception`, so that no reader takes it for damage."""


def _alarm(*_):
    raise TooSlow


def outcome(reader: Reader, folder: Path, expected: str) -> tuple[str, str]:
    """What became of a case, one of FINDINGS or not, and more about it."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        found = repr(reader.read(folder)).replace(str(folder), "")
    except UserError as error:
        text = str(error)
        is_line = text.isprintable() and len(text) <= MAX_MESSAGE + len("...")
        return "refused" if is_line else "no line", text
    except OSError as error:
        return "refused", f"{error.filename}: {error.strerror}"
    except TooSlow:
        return "slow", traceback.format_exc(limit=-4)
    except MemoryError:
        return "memory", traceback.format_exc(limit=-4)
    except BaseException:
        return "traceback", traceback.format_exc(limit=-6)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if found in (expected, repr("told")):
        return "same", found
    return ("changed" if reader.keeps else "another"), found


def attempt(reader, base: Path, names: list[Path], place: Path, random: Random, expected: str):
    """One case in the empty folder `place`: its outcome, more about it, and the damaged file.

    `names` are the files of `base` of which one is damaged.
    """
    folder, elsewhere = place / "case", place / "tmp"
    shutil.copytree(base, folder)
    elsewhere.mkdir()
    os.chdir(place)
    path = folder / random.choice(names)
    before = path.read_bytes()
    path.write_bytes(reader.damage(before, random))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    start = _peak()
    name, about = outcome(reader, folder, expected)
    if name == "slow":  # once more: the machine may be busy, or something was compiled
        name, about = outcome(reader, folder, expected)
    if name not in FINDINGS:
        grown = _peak() - start
        left = [*place.rglob("*.tmp"), *elsewhere.iterdir()]
        strange = set(os.listdir(place)) - {"case", "tmp"}
        if list(place.rglob(f"{CANARY}*")) or strange:
            name, about = "escape", f"{strange}; {about}"
        elif left:
            name, about = "left over", f"{left}; {about}"
        elif grown > BYTES:
            name, about = "memory", f"{grown >> 20} MB; {about}"
    return name, about, path


def _peak() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))


class Task(NamedTuple):
    """What all cases of a reader share: see `attempt` and `run`."""

    name: str
    base: Path
    names: list[Path]
    expected: str
    seed: int
    keep: Path | None


def work(task: Task, numbers: range, pipe: int) -> None:
    """Cases in a child: a line of JSON for each."""
    name, base, names, expected, seed, keep = task
    reader = READERS[name]
    signal.signal(signal.SIGALRM, _alarm)
    tempfile.tempdir = None
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 1)
        os.dup2(null.fileno(), 2)
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (_size() + 4 * BYTES,) * 2)
    for number in numbers:
        os.write(pipe, f"{number}\n".encode())
        with tempfile.TemporaryDirectory(dir=base.parent) as place:
            os.environ["TMPDIR"] = tempfile.tempdir = f"{place}/tmp"
            random = Random(f"{name} {number} {seed}")
            try:
                found = attempt(reader, base, names, Path(place), random, expected)
            except Exception:  # of the driver or the damage
                found = "crash", traceback.format_exc(limit=-4), base / "none"
            tempfile.tempdir = None
            if keep and found[0] in FINDINGS and found[2].exists():
                target = keep / f"{name.replace(': ', '_').replace(' ', '_')}-{number}"
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(found[2], target)
        os.write(pipe, (json.dumps((found[0], found[1][-2500:])) + "\n").encode())


def _size() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def missing(name: str) -> str:
    """The optional module that a reader needs, if it is not here."""
    needed = READERS[name].needs
    return "" if not needed or importlib.util.find_spec(needed) else needed


@functools.cache
def warm_up() -> None:
    """What compiles itself when it is first used, before the cases are timed."""
    import librosa

    librosa.resample(np.zeros(800, "f4"), orig_sr=8000, target_sr=16000, res_type="soxr_hq")


def run(name: str, cases: int, seed: int, keep: Path | None = None, shown=None) -> dict:
    """Outcomes of a reader's cases: how many of each, and the findings with their numbers."""
    counts, findings, done = collections.Counter(), [], 0
    warm_up()
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch, "base")
        base.mkdir()
        root = base.resolve()
        names = [path.resolve().relative_to(root) for path in READERS[name].make(base)]
        whole = Path(scratch, "whole")
        shutil.copytree(base, whole)
        with contextlib.chdir(scratch):
            value = repr(READERS[name].read(whole)).replace(str(whole), "")
        shutil.rmtree(whole)
        task = Task(name, base, names, value, seed, keep)
        while done < cases:
            done = _child(task, range(done, cases), counts, findings, shown)
    return {"counts": dict(counts), "findings": findings}


def _child(task: Task, numbers: range, counts, findings, shown) -> int:
    """Cases up to the end, or to one that kills the child; returns the next case's number."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        with contextlib.suppress(BaseException):
            work(task, numbers, writing)
            os._exit(0)
        os._exit(1)
    os.close(writing)
    number, buffer, last = numbers.start, b"", time.monotonic()
    with contextlib.closing(os.fdopen(reading, "rb", buffering=0)) as pipe:
        while True:
            ready = select.select([pipe], [], [], HANG)[0]
            data = os.read(pipe.fileno(), 1 << 16) if ready else b""
            if not data:
                os.kill(child, signal.SIGKILL)
                break
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                if line.isdigit():
                    number = int(line)
                    continue
                with contextlib.suppress(ValueError):
                    what, about = json.loads(line)
                    counts[what] += 1
                    if what in FINDINGS:
                        findings.append((number, what, about))
                number += 1
                if shown is not None:
                    shown.update()
                last = time.monotonic()
    _, status = os.waitpid(child, 0)
    if number < numbers.stop:
        what = "slow" if time.monotonic() - last > SECONDS else "crash"
        counts[what] += 1
        findings.append((number, what, f"status {status}"))
        return number + 1
    return numbers.stop


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "readers", nargs="*", metavar="READER", help="some of: " + "; ".join(READERS)
    )
    parser.add_argument("--cases", type=int, default=300, help="of each reader (default: 300)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files of findings")
    options = parser.parse_args()
    chosen = options.readers or [*READERS]
    unknown = [name for name in chosen if name not in READERS]
    if unknown:
        parser.error(f"no reader is called {unknown[0]!r}; see --help")
    total = 0
    print(
        f"{'reader':28} {'cases':>7} {'same':>7} {'another':>7} {'refused':>7} {'findings':>8}  s"
    )
    for name in chosen:
        needed = missing(name)
        if needed:
            print(f"{name:28} needs {needed} (envs/)")
            continue
        start = time.monotonic()
        with progress(None, options.cases, name, "case") as bar:
            found = run(name, options.cases, options.seed, options.keep, bar)
        counts, findings = found["counts"], found["findings"]
        total += len(findings)
        columns = (counts.get(key, 0) for key in ("same", "another", "refused"))
        print(
            f"{name:28} {sum(counts.values()):7} " + " ".join(f"{n:7}" for n in columns)
            + f" {len(findings):8}  {time.monotonic() - start:.0f}", flush=True,
        )  # fmt: skip
        seen = collections.Counter()
        for number, what, about in findings:
            last = about.strip().splitlines()[-1:] or [""]
            key = (what, last[0][:60])
            seen[key] += 1
            if seen[key] <= 2:
                print(f"    case {number}: {what}: {about.strip()[-1200:]}")
    return bool(total)


if __name__ == "__main__":
    sys.exit(main())
