"""Stages and jobs that a run of the workflow starts, as forks of a process with their imports.

`client` writes a program that takes the interpreter's place in such a run: it hands what it is
asked to run, its folder, environment and open files to `serve`, waits, and ends as that ended. The
rest it leaves to the interpreter.
"""

import contextlib
import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import sys
from pathlib import Path

# Its second line is the shell's: the interpreter's path may have spaces in it.
CLIENT = """\
#!/bin/sh
"exec" "{python}" "-IS" "$0" "$@"
import json, os, socket, sys
python, words = {python!r}, sys.argv[1:]
if words[:1] != ["-m"] or words[1].partition(".")[0] not in ("deepspeech2", "snakemake"):
    os.execv(python, [python, *words])
text = json.dumps([words[1:], os.getcwd(), dict(os.environ)]).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect({place!r})
    socket.send_fds(server, [len(text).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(text)
    status = int(server.recv(8))
if os.WIFSIGNALED(status):
    os.kill(os.getpid(), os.WTERMSIG(status))
os._exit(os.waitstatus_to_exitcode(status))
"""


def client(folder: Path) -> Path:
    """The program, for the server whose socket is in `folder`."""
    path = folder / "python"
    path.write_text(CLIENT.format(python=sys.executable, place=str(folder / "socket")))
    path.chmod(0o755)
    return path


def serve(folder: Path, strange: list[str]) -> None:
    """Run what clients ask for, each in a fork, as long as whoever started this lives.

    No fork looks for modules in `strange` folders.
    """
    multiprocessing.set_start_method(None, force=True)  # a program's own, not that of this fork
    sys.path[:] = [place for place in sys.path if place not in ("", *strange)]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who wait for them are forks, too
    alive = multiprocessing.parent_process().sentinel
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "new"))
        server.listen(64)
        (folder / "new").rename(folder / "socket")
        while alive not in select.select([server, alive], [], [])[0]:
            connection, _ = server.accept()
            with connection:
                if not os.fork():
                    server.close()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    return _answer(connection, str(folder / "python"))


def _answer(connection: socket.socket, interpreter: str) -> None:
    head, files, _, _ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as stream:
        words, folder, environment = json.loads(stream.read(int.from_bytes(head, "big")))
    runner = os.fork()
    if not runner:
        connection.close()
        os.setsid()
        return _run(words, folder, environment, files, interpreter)
    for number in range(3):
        os.close(files[number])
    ended = os.pidfd_open(runner)
    ready, _, _ = select.select([ended, connection], [], [])
    if ended not in ready:  # the client was killed
        os.kill(runner, signal.SIGKILL)
    _, status = os.waitpid(runner, 0)
    with contextlib.suppress(OSError):
        connection.sendall(str(status).encode())
    os._exit(0)


def _run(words: list, folder: str, environment: dict, files: list, interpreter: str) -> None:
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.path[:0] = environment.get("PYTHONPATH", "").split(os.pathsep)
    become(words, folder, environment, interpreter)


def become(words: list, folder: str, environment: dict, interpreter: str) -> None:
    """Do what `python -m WORDS` does in `folder`; Snakemake starts stages with `interpreter`."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = words
    if words[0] == "snakemake":
        sys.executable = interpreter
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)
