"""What the command lines of all stages share: options, log, progress bar and one-line errors.

A stage is a module with a typed `main` that ends with `cli.run(main)`. The parameters of `main`
are its options, a line `name: help` of its docstring explains each, and the module's docstring says
what the stage does. `Input` and `Output` are paths that it reads and writes, `Cores` how many cores
it may use: from these the rules of the workflow know what to hand over (`sources.options`).
Parameters after `*` are for people: no rule uses them.

Whatever a user can cause is raised as `UserError` and leaves the stage as one line on standard
error, which is also the last line of its log, with exit status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import inspect
import json
import logging
import multiprocessing
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from deepspeech2 import OUT_OF_MEMORY, lacks_memory
from deepspeech2.cores import granted

log = logging.getLogger("deepspeech2")
Input = Output = Path
CORES = granted()
MAX_MESSAGE = 1000  # characters
# Objects between two collections of garbage. Most are made by imports, and stay: to look through
# those of torch again and again takes a tenth of a second in each of many jobs.
GARBAGE = 20_000
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What code that takes a value as what it should be raises for one of another kind.
OF_VALUES = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
used: list = []  # last of all sealed files: its path, what makes it anew, the key


class UserError(Exception):
    """A failure that the user can mend. The text says what is wrong, where, and what to do.

    It is one line, without characters that a terminal obeys.
    """

    def __str__(self) -> str:
        text = printable(" ".join(super().__str__().split()))
        return text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "..."


def printable(text: str) -> str:
    """A text on one line, with escapes for what shows as nothing or turns the rest around."""
    return re.sub(r"[^ -~]", lambda c: c[0] if c[0].isprintable() else ascii(c[0])[1:-1], text)


class Cores(int):
    """Threads or processes, no more than run at once here."""

    @classmethod
    def parse(cls, text: str) -> int:
        """So many, or as many as there are."""
        return min(int(text), CORES)


class Arguments(list):
    """Texts that stand on the command line without an option's name, one or more."""


class Settings(dict):
    """A JSON object, given as text."""

    @classmethod
    def parse(cls, text: str) -> Settings:
        """The object that `text` holds."""
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise argparse.ArgumentTypeError(f"broken JSON ({error})") from None
        if not isinstance(found, dict):
            raise argparse.ArgumentTypeError("not a JSON object")
        return cls(found)


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like every other failure of a stage."""

    def error(self, message: str) -> None:
        self.exit(2, f"error: {message}; see --help\n")


def parser_of(main: Callable[..., None]) -> argparse.ArgumentParser:
    """The parser of a stage's options, from the signature and docstring of its `main`."""
    module = sys.modules[main.__module__]
    spec = getattr(module, "__spec__", None)
    parser = _Parser(
        prog=f"python -m {spec.name.removesuffix('.__main__')}" if spec else None,
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    helps = dict(re.findall(r"(?m)^ +(\w+): (.+(?:\n +(?!\w+: )\S.*)*)", main.__doc__ or ""))
    for name, parameter in inspect.signature(main).parameters.items():
        text = " ".join(helps[name].split()).replace("%", "%%")
        _add_option(parser, name, parameter, text, main.__globals__)
    parser.add_argument("--log", metavar="FILE", help="write notes here instead of standard error")
    return parser


def _add_option(parser, name: str, parameter: inspect.Parameter, text: str, scope: dict) -> None:
    flag, annotation, default = f"--{name.replace('_', '-')}", parameter.annotation, None
    kind = eval(annotation.removesuffix(" | None"), scope)
    required = parameter.default is parameter.empty and not annotation.endswith(" | None")
    if parameter.default is not parameter.empty:
        default = parameter.default
        shown = " ".join(map(str, default)) if isinstance(default, (list, tuple)) else default
        text += "" if default in (None, False, "") else f" (default: {shown})"
    origin = get_origin(kind)
    if kind is Arguments:
        parser.add_argument(name, nargs="+", metavar=name.rstrip("s").upper(), help=text)
    elif kind is bool:
        parser.add_argument(flag, action="store_true", help=text)
    elif origin in (list, dict):
        item, form = get_args(kind)[-1], "NAME=" if origin is dict else ""
        convert = getattr(item, "parse", item)
        convert = (lambda pair: _pair(pair, item)) if origin is dict else convert
        metavar = form + _metavar(item)
        parser.add_argument(
            flag, nargs="*", type=convert, default=default, required=required, metavar=metavar,
            help=text, action=_AsDict if origin is dict else "store",
        )  # fmt: skip
    else:
        choices = get_args(kind) if origin is Literal else None
        metavar = f"{{{','.join(map(str, choices))}}}" if choices else _metavar(kind)
        convert = _converter(kind, choices, default, required)
        parser.add_argument(
            flag, type=convert, default=default, required=required, metavar=metavar, help=text
        )


def _metavar(kind: Any) -> str:
    names = {Path: "PATH", int: "N", Cores: "N", float: "X", str: "TEXT"}
    return names.get(kind, "JSON")


def _converter(kind: Any, choices: Sequence | None, default: Any, required: bool) -> Callable:
    """What makes an option's value of its text. An empty text stands for what is not given."""

    def convert(text: str) -> Any:
        if text == "" and not required:
            return default
        if choices is None:
            return getattr(kind, "parse", kind)(text)
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    convert.__name__ = getattr(kind, "__name__", "value")  # argparse shows it
    return convert


def _pair(text: str, kind: Any) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, kind(value)


class _AsDict(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None) -> None:
        setattr(namespace, self.dest, dict(values))


def call(main: Callable[..., None], argv: Sequence[str] | None = None) -> None:
    """Call `main` with the options in `argv` (None: the program's), its log opened."""
    values = vars(parser_of(main).parse_args(argv))
    path = values.pop("log")
    for handler in log.handlers[:]:
        log.removeHandler(handler)
        handler.close()
    if path:
        handler = logging.FileHandler(path, mode="w", encoding="utf-8", errors="backslashreplace")
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.format = lambda record: printable(record.getMessage())
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if path else logging.INFO)
    log.propagate = False
    logging.raiseExceptions = False  # a log that cannot be written must not hide why
    with naming_used():
        main(**values)


@contextlib.contextmanager
def naming_used() -> Iterator[None]:
    """What a value of another kind in a sealed file causes is one line; the log has the rest.

    Whoever edits such a file can seal it anew: no reader checks the kind of each of its values.
    """
    used.clear()
    try:
        yield
    except OF_VALUES as error:
        if not used:
            raise
        for line in traceback.format_exc().splitlines():
            log.debug(line)
        (path, then, key), what = used, f"{type(error).__name__}: {error}"
        raise UserError(
            f"{path}: it, or a file that was read before it, has a value of another kind than "
            f"this version writes (near {key!r}: {what:.200}); {then}; the log has the place"
        ) from None


def progress(items: Iterable | None, total: int | None = None, what: str = "", unit: str = "it"):
    """`items`, with a progress bar after two seconds. Nothing is shown outside a terminal."""
    from tqdm import tqdm

    return tqdm(items, total=total, desc=what, unit=unit, disable=None, leave=False, delay=2)


class _Pool(ProcessPoolExecutor):
    def __exit__(self, kind, *about):
        # After an error nothing that they still compute is needed. Python 3.11.2 was once seen to
        # wait without end here, for work that no process had.
        for process in list((self._processes or {}).values()) if kind else ():
            process.kill()
        return super().__exit__(kind, *about)


def pool(processes: int | None = None) -> ProcessPoolExecutor:
    """A pool of processes that end with this one, even if it is killed."""
    return _Pool(processes, initializer=_end_with_parent)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def run(main: Callable[..., None]) -> None:
    """Run a stage as a program. Errors of the user and of the system end as one line."""
    gc.set_threshold(GARBAGE)
    try:
        call(main)
    except UserError as error:
        _fail(str(error))
    except (MemoryError, RuntimeError, ImportError, SystemError) as error:
        if not (lacks_memory(error) or isinstance(error, BrokenProcessPool)):
            raise
        _fail(OUT_OF_MEMORY)
    except OSError as error:
        # A full disk, a missing right, a vanished file: the system's words name them well.
        where = f"{error.filename}: " if error.filename else ""
        then = "; make room and run again" if error.errno in NO_ROOM else ""
        _fail(f"{where}{error.strerror or error}{then}")
    except KeyboardInterrupt:
        _fail("interrupted; run again to continue", status=130)
    finally:
        gc.freeze()  # or all of it is looked through once more at the end, 0.3 s with torch


def _fail(message: str, status: int = 1) -> None:
    line = f"error: {printable(message)}"
    if any(isinstance(handler, logging.FileHandler) for handler in log.handlers):
        log.error(line)
    print(line, file=sys.stderr)
    sys.exit(status)
