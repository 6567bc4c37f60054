"""DeepSpeech2: accuracy and speed per batch size, from a speech archive and a checkpoint."""

import os
import re
import sys

OUT_OF_MEMORY = "out of memory; use a smaller batch size, fewer processes or shorter utterances"
_LINE = f"error: {OUT_OF_MEMORY}\n".encode()
# torch has no class of its own for it, nor have threads and loaders; Python may lose its own.
_SAID = r"(?<!')\bmemory\b|bad_alloc|new thread|map segment|create a primitive$|without excep"


def lacks_memory(error) -> bool:
    """Whether an exception, or one that it followed on, says that memory is short."""
    while error and not isinstance(error, MemoryError):
        of_system = isinstance(error, (RuntimeError, ImportError, OSError, SystemError))
        if of_system and not getattr(error, "filename", None) and re.search(_SAID, str(error)):
            break
        error = error.__context__
    return error is not None


def _end(kind, error, trace) -> None:
    if lacks_memory(error):
        os.write(2, _LINE)  # what needs no memory
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[0] == "-m":  # a stage is about to be imported, which comes before `cli.run`
    sys.excepthook = _end

# torch imports every plugin for a device that is installed, and cannot be imported itself where one
# of them is broken, not even for the CPU. Here an engine imports the plugin that it needs.
os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
