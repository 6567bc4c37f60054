"""A stage with a fault, in a process of its own: `python -m faulty FAULT NUMBER STAGE OPTIONS`.

count   nothing; prints how often the stage changed (1: or opened) something in the working folder
kill    it is killed (-9) before its change of that number
cut     as kill, and what it and its processes wrote and did not sync is lost: such files are empty
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


class Unsynced:
    """What a power cut would lose: files that were written since they were last synced.

    Kept in a file, as other processes of the stage write, too. A rename takes its loss along.
    """

    def __init__(self):
        self.notes = os.open(os.environ["UNSYNCED"], os.O_APPEND | os.O_CREAT | os.O_RDWR)
        for name, path_of in (("fsync", self._path), ("fdatasync", self._path), ("sync", None)):
            setattr(os, name, self._noting(getattr(os, name), path_of))

    def _path(self, descriptor):
        return os.readlink(f"/proc/self/fd/{descriptor}")

    def _noting(self, function, path_of):
        def sync(*descriptor):
            function(*descriptor)
            self.note("synced", path_of(*descriptor) if path_of else "")

        return sync

    def note(self, what, *paths):
        os.write(self.notes, "\0".join((what, *map(os.path.abspath, paths))).encode() + b"\n")

    def lose(self):
        """Empty the files that are lost."""
        lost = {}
        data = os.pread(self.notes, os.fstat(self.notes).st_size, 0).decode()
        for what, *paths in (line.split("\0") for line in data.splitlines()):
            if what == "written":
                lost[paths[0]] = None
            elif what == "synced":
                everything = paths == [os.path.abspath("")]
                lost = {} if everything else {x: None for x in lost if x != paths[0]}
            else:
                old, new = paths
                inside = {x: new + x[len(old) :] for x in lost if f"{x}/".startswith(f"{old}/")}
                lost = {inside.get(x, x): None for x in lost}
        for path in lost:
            if os.path.isfile(path):
                os.truncate(path, 0)


def main(fault: str, number: int, module: str) -> None:
    unsynced = Unsynced() if fault == "cut" else None

    def count(event: str, arguments: tuple) -> None:
        global done
        if is_change(event, arguments, fault == "edit" or (fault == "count" and number)):
            done += 1
            if unsynced and done == number:
                unsynced.lose()
            if fault in ("kill", "cut") and done == number:
                os.kill(os.getpid(), signal.SIGKILL)
            if unsynced and event == "open":
                unsynced.note("written", arguments[0])
            elif unsynced and event == "os.rename":
                unsynced.note("renamed", *arguments[:2])
            if fault == "edit" and done == number:
                subprocess.run(os.environ["EDIT"], shell=True, check=True)

    if fault in ("count", "kill", "cut", "edit"):
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
