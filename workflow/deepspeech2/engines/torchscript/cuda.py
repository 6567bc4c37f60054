"""What a machine with NVIDIA GPUs has, as torch and the driver see it."""

from __future__ import annotations

import subprocess


def number(device: str) -> int:
    """Number of the GPU that `cuda` or `cuda:N` names."""
    return int(device.partition(":")[2] or 0)


def missing(device: str = "cuda") -> str | None:
    """Why torch cannot compute on `device`, in one line, or None where it can."""
    import torch

    if torch.version.cuda is None:
        return (
            f"torch {torch.__version__} was built without CUDA; install a build with CUDA in the "
            "interpreter that engines.<name>.python names"
        )
    if not torch.cuda.is_available():
        return (
            f"torch finds no CUDA device: is NVIDIA's driver installed, and new enough for CUDA "
            f"{torch.version.cuda}? nvidia-smi says so"
        )
    count = torch.cuda.device_count()
    if number(device) >= count:
        return f"there is no device {device}: torch finds {count}, counted from cuda:0"
    return None


def driver() -> str | None:
    """Version of NVIDIA's driver; None where its nvidia-smi cannot be run."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else (done.stdout.split() or [None])[0]


def versions() -> dict[str, str]:
    """CUDA, cuDNN and driver, as far as they are there."""
    import torch

    found = {
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
        "driver": driver(),
    }
    return {name: str(value) for name, value in found.items() if value}


def devices() -> dict[str, str]:
    """Names and memory of the GPUs that torch finds, by device."""
    import torch

    found = {}
    for one in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(one)
        found[f"cuda:{one}"] = f"{about.name}, {about.total_memory / 2**30:.0f} GiB"
    return found
