"""Programs in forks of a process that has imported what they need: the tests start very many.

Half of what a short run takes is imports. The package under test is not imported here, so that
every run takes the one of its own checkout; and what the workflow starts are programs, as always.
"""

import faulthandler
import gc
import importlib
import multiprocessing
import os

import forks
import snakemake.cli

snakemake.cli.get_argument_parser()  # imports the plugins
os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"  # as the package does
for name in (
    *("jsonschema", "smart_open", "snakemake.dag", "snakemake.report.html_reporter", "yaml"),
    *("torch", "torch._dynamo", "librosa.filters", "scipy.signal", "soundfile"),
    *("pandas", "matplotlib.figure"),
):
    importlib.import_module(name)
gc.freeze()  # no fork looks through all that again


def run(
    words: list,
    folder: str,
    environment: dict,
    out: str,
    err: str,
    longest: float,
    interpreter: str,
) -> None:
    """`forks.become`, with what it prints in the files `out` and `err`.

    After so many seconds it says where it is, and ends.
    """
    multiprocessing.set_start_method(None, force=True)  # a program's own, not that of this fork
    for number, path in enumerate((out, err), 1):
        with open(path, "w") as file:
            os.dup2(file.fileno(), number)
    faulthandler.dump_traceback_later(longest, exit=True, file=2)
    forks.become(words, folder, environment, interpreter)
