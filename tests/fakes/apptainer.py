#!/usr/bin/env python3
"""A stand-in for Apptainer, where none is to be had: it takes what Snakemake says to run a command.

The command runs with the image's PATH, in the folder that is bound as home. Whatever else the real
one would not take is refused. FAKE_APPTAINER is a file that gets a line for each call.
"""

import argparse
import os
import sys
from pathlib import Path

if sys.argv[1:] == ["--version"]:
    print("apptainer version 1.3.4")
    sys.exit()
parser = argparse.ArgumentParser(prog="apptainer", allow_abbrev=False)
parser.add_argument("action", choices=["exec"])
parser.add_argument("--home", required=True, type=Path)
parser.add_argument("--bind", action="append", default=[])
parser.add_argument("image", type=Path)
parser.add_argument("command", nargs=argparse.REMAINDER)
asked = parser.parse_args()
if asked.image.suffix != ".sif" or not asked.image.is_file():
    sys.exit(f"FATAL: could not open image {asked.image}: failed to retrieve path")
if not asked.home.is_dir() or not asked.command:
    parser.error("no folder for --home, or no command")
with open(os.environ["FAKE_APPTAINER"], "a") as file:
    file.write(f"{asked.image}\n")
os.chdir(asked.home)
os.environ["PATH"] = f"{Path(sys.executable).parent}:/usr/bin:/bin"
os.execvp(asked.command[0], asked.command)
