"""What the command lines of all stages share: arguments, log, progress bar and one-line errors.

A stage module has `main(argv)` and ends with `stage.run(main)`. Whatever a user can cause is
raised as `UserError` and leaves the stage as one line on standard error, which is also the last
line of its log, with exit status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool

log = logging.getLogger("deepspeech2")
MAX_MESSAGE = 1000  # characters
# Objects between two collections of garbage. Most are made by imports, and stay: to look through
# those of torch again and again takes a tenth of a second in each of many jobs.
GARBAGE = 20_000
OUT_OF_MEMORY = "out of memory; use a smaller batch size, fewer processes or shorter utterances"


class UserError(Exception):
    """A failure that the user can mend. The text says what is wrong, where, and what to do."""

    def __str__(self) -> str:
        text = " ".join(super().__str__().split())
        return text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "..."


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like every other failure of a stage."""

    def error(self, message: str) -> None:
        self.exit(2, f"error: {message}; see --help\n")


def parser(doc: str) -> argparse.ArgumentParser:
    """An argument parser whose help is the module's docstring, with the options of every stage."""
    parser = _Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", metavar="FILE", help="write notes here instead of standard error")
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse `argv` and open the log that it names."""
    args = parser.parse_args(argv)
    for handler in log.handlers[:]:
        log.removeHandler(handler)
        handler.close()
    if args.log:
        handler = logging.FileHandler(
            args.log, mode="w", encoding="utf-8", errors="backslashreplace"
        )
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    return args


def progress(items: Iterable, total: int | None = None, what: str = "", unit: str = "it"):
    """`items`, with a progress bar after two seconds. Nothing is shown outside a terminal."""
    from tqdm import tqdm

    return tqdm(items, total=total, desc=what, unit=unit, disable=None, leave=False, delay=2)


def run(main: Callable[[Sequence[str] | None], None]) -> None:
    """Run a stage as a program. Errors of the user and of the system end as one line."""
    gc.set_threshold(GARBAGE)
    try:
        main(None)
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        # A full disk, a missing right, a vanished file: the system's words name them well.
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}")
    except (MemoryError, BrokenProcessPool):
        _fail(OUT_OF_MEMORY)
    except RuntimeError as error:
        if "memory" not in str(error):  # torch has no class of its own for it
            raise
        _fail(OUT_OF_MEMORY)
    except KeyboardInterrupt:
        _fail("interrupted; run again to continue", status=130)
    finally:
        gc.freeze()  # or all of it is looked through once more at the end, 0.3 s with torch


def _fail(message: str, status: int = 1) -> None:
    line = f"error: {message}"
    logs_to_file = [h for h in log.handlers if isinstance(h, logging.FileHandler)]
    if logs_to_file:
        with contextlib.suppress(OSError):  # a full disk must not hide the message
            log.error(line)
    print(line, file=sys.stderr)
    logging.raiseExceptions = False
    sys.exit(status)
