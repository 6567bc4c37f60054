#!/usr/bin/env python3
"""A stand-in for Slurm's programs, by the name under which it is started.

It runs jobs as processes, at once, and refuses what the real ones would: options that they do not
have, memory, times and cores that are no numbers or that no node has. FAKE_SLURM is its folder:
jobs.jsonl has what every job asked for, and N.state what became of job N.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(os.environ.get("FAKE_SLURM", "."))
MOST_CORES, MOST_MEGABYTES = 4, 16_000


def number(least, most):
    """A whole number that a node can give."""

    def parse(text):
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"invalid number {text!r}")
        return int(text)

    return parse


def gres(text):
    if not re.fullmatch(r"[a-z]+(:\w+)?(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"Invalid generic resource (gres) specification {text!r}")
    return text


def sbatch(words):
    parser = argparse.ArgumentParser(prog="sbatch", allow_abbrev=False)
    parser.add_argument("--parsable", action="store_true", required=True)
    parser.add_argument("--job-name", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--export", choices=["ALL"])
    parser.add_argument("--comment", required=True)
    parser.add_argument("-A")
    parser.add_argument("-p")
    parser.add_argument("-C")
    parser.add_argument("-t", type=number(1, 100_000), required=True)
    parser.add_argument("--mem", type=number(1, MOST_MEGABYTES), required=True)
    parser.add_argument("--ntasks", type=number(1, 1))
    parser.add_argument("--cpus-per-task", type=number(1, MOST_CORES))
    parser.add_argument("--gpus", type=number(1, 8))
    parser.add_argument("--cpus-per-gpu", type=number(1, MOST_CORES))
    parser.add_argument("--gres", type=gres)
    parser.add_argument("--exclusive", action="store_true")
    parser.add_argument("-D", required=True)
    parser.add_argument("--wrap", required=True)
    asked = vars(parser.parse_args(words))
    with open(FOLDER / "jobs.jsonl", "a+") as file:
        file.seek(0)
        job = len(file.readlines()) + 1
        file.write(json.dumps({**asked, "id": job}) + "\n")
    # Its own interpreter waits for it, as nobody waits for us.
    runner = (
        "import subprocess, sys; from pathlib import Path\n"
        "done = subprocess.run(['/bin/sh', '-c', sys.argv[1]])\n"
        "state = 'FAILED' if done.returncode else 'COMPLETED'\n"
        "Path(sys.argv[2]).write_text(state)\n"
    )
    state = FOLDER / f"{job}.state"
    state.write_text("RUNNING")
    with open(asked["output"].replace("%j", str(job)), "w") as log:
        subprocess.Popen(
            [sys.executable, "-c", runner, asked["wrap"], state],
            cwd=asked["D"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, env={**os.environ, "SLURM_JOB_ID": str(job)},
        )  # fmt: skip
    print(job)


def squeue(words):
    for path in sorted(FOLDER.glob("*.state")):
        print(f"{path.stem}|{path.read_text()}")


def srun(words):
    command = words[words.index("-n1") + 1 :]
    while command[0].startswith("-"):
        command.pop(0)
    os.execvp(command[0], command)


def sinfo(words):
    print("PARTITION\nall*")


def scontrol(words):
    print("MinJobAge               = 86400 sec")


def scancel(words):
    sys.exit("nothing here cancels jobs")


if __name__ == "__main__":
    globals()[Path(sys.argv[0]).name](sys.argv[1:])
