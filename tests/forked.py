"""Snakemake in a fork of a process that has imported it: the tests make very many dry runs.

Half of what a dry run takes is imports. The package under test is not imported here, so that
every run takes the one of its own checkout.
"""

import importlib
import os
import sys

import snakemake.cli

snakemake.cli.get_argument_parser()  # imports the plugins
for name in ("jsonschema", "snakemake.dag", "snakemake.report.html_reporter", "yaml"):
    importlib.import_module(name)


def run(folder: str, arguments: list[str], output: str) -> None:
    """What `snakemake ARGUMENTS` does in `folder`; what it prints is in the file `output`."""
    os.chdir(folder)
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["snakemake", *arguments]
    snakemake.cli.main(arguments)
