"""A stage with a fault, in a process of its own: `python -m faulty FAULT NUMBER STAGE OPTIONS`.

count   nothing; prints how often the stage changed (1: or opened) something in the working folder
kill    it is killed (-9) before its change of that number
edit    before it opens or changes something for that time, the command $EDIT is run
size    no file gets longer than so many bytes, as on a disk that is full
memory  it gets only so many bytes more than its imports took
"""

import contextlib
import importlib
import os
import resource
import runpy
import signal
import subprocess
import sys
import warnings
from pathlib import Path

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
HERE = f"{Path.cwd()}{os.sep}"
PATIENCE = 20  # seconds
done = 0


def is_change(event: str, arguments: tuple, reads: bool) -> bool:
    """Whether an event of the interpreter's is a change in the working folder, or reads there."""
    if not (event in CHANGES or (event == "open" and (reads or arguments[2] & WRITES))):
        return False
    path = arguments[0]
    return isinstance(path, (str, os.PathLike)) and os.path.abspath(path).startswith(HERE)


def main(fault: str, number: int, module: str) -> None:
    def count(event: str, arguments: tuple) -> None:
        global done
        if is_change(event, arguments, fault == "edit" or (fault == "count" and number)):
            done += 1
            if fault == "kill" and done == number:
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "edit" and done == number:
                subprocess.run(os.environ["EDIT"], shell=True, check=True)

    if fault in ("count", "kill", "edit"):
        sys.addaudithook(count)
    if fault == "size":
        said, write = os.pipe()  # which has no limit
        err = os.dup(2)
        os.dup2(write, 2)
        os.close(write)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (number, resource.RLIM_INFINITY))
    if fault == "memory":
        importlib.import_module(module)
        warnings.simplefilter("ignore", RuntimeWarning)  # of runpy: that it is imported
        # Where a new thread gets no memory as it starts, Python waits for it forever.
        signal.alarm(PATIENCE)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + number
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        if fault == "count":
            print(done)
        if fault == "size":
            sys.stderr.flush()
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            os.dup2(err, 2)
            os.set_blocking(said, False)
            with contextlib.suppress(BlockingIOError):
                os.write(err, os.read(said, 1 << 16))


if __name__ == "__main__":
    fault, number, module = sys.argv[1:4]
    del sys.argv[1:4]
    main(fault, int(number), module)
