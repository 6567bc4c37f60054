"""Devices of this machine, each of which one stage at a time has.

`device: cuda:*` or `npu:*` takes whichever is free first; a device with a number is waited for. Who
has one holds a lock on a file of its name, which the system frees when the process ends, however it
ends. Locks are a user's own: other users' programs do not know them. On a cluster's node the device
is one of those that the scheduler gave, and its lock has the name of the whole machine's. Runs with
other folders for temporary files, or that name devices by UUID where others have numbers, do not
meet.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from pathlib import Path

from deepspeech2 import engines
from deepspeech2.cli import UserError, log
from deepspeech2.engines import Engine

ANY = "*"
POLL = 0.1  # seconds
TELL = 5  # seconds after which the log says that it waits
# What says which devices a process may use, numbers counted from 0 within it.
VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "npu": "ASCEND_RT_VISIBLE_DEVICES"}
_held: list[int] = []  # descriptors of locks, for as long as this process lives


def place(engine: Engine) -> Engine:
    """The engine on a device that this process alone has from now on, until it ends.

    On the CPU, where others are kept away otherwise, it is the engine itself.
    """
    kind, _, number = engine.device.partition(":")
    if kind not in VISIBLE:
        return engine
    numbers = range(_count(engine, kind)) if number == ANY else [int(number or 0)]
    started = told = time.monotonic()
    while True:
        for one in numbers:
            if _take(f"{kind}-{_name(kind, one)}"):
                if number == ANY:
                    log.info("device %s:%d", kind, one)
                return engine._replace(device=f"{kind}:{one}")
        if time.monotonic() - told > TELL:
            told = float("inf")
            log.info("waits for a device: %s is in use", engine.device)
        time.sleep(POLL if time.monotonic() - started < TELL else 10 * POLL)


def _count(engine: Engine, kind: str) -> int:
    found = engines.backend_class(engine.backend).examine(kind).found
    count = sum(name.startswith(f"{kind}:") for name in found)
    count = count or len(_visible(kind))
    if not count:
        raise UserError(
            f"device {engine.device}: none is found here; name one ({kind}:0), or see "
            f"python -m deepspeech2.doctor"
        )
    return count


def _visible(kind: str) -> list[str]:
    given = map(str.strip, os.environ.get(VISIBLE[kind], "").split(","))
    return [name for name in given if name not in ("", "-1", "NoDevFiles")]


def _name(kind: str, number: int) -> str:
    """The device's number in the whole machine, where something tells it."""
    visible = _visible(kind)
    name = visible[number] if number < len(visible) else str(number)
    return "".join(c if c.isalnum() else "_" for c in name)


def _take(name: str) -> bool:
    folder = Path(tempfile.gettempdir(), f"deepspeech2-devices-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise UserError(f"{folder}: somebody else's; remove it, or set TMPDIR")
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False
    _held.append(descriptor)
    return True
