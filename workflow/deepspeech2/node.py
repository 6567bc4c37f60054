"""Where something is computed, as every result says it: the node, its CPU, and a device in it."""

from __future__ import annotations

import contextlib
import platform

CPU = "/proc/cpuinfo"
# Of Arm's CPUs Linux tells these numbers only (MIDR_EL1), as "implementer part": as lscpu has them.
ARM_CPUS = {
    "0x41 0xd03": "Arm Cortex-A53", "0x41 0xd08": "Arm Cortex-A72",
    "0x41 0xd0b": "Arm Cortex-A76", "0x41 0xd41": "Arm Cortex-A78",
    "0x41 0xd0c": "Arm Neoverse N1", "0x41 0xd49": "Arm Neoverse N2",
    "0x41 0xd40": "Arm Neoverse V1", "0x41 0xd4f": "Arm Neoverse V2",
    "0x41 0xd8e": "Arm Neoverse N3", "0x41 0xd84": "Arm Neoverse V3",
    "0x43 0x0af": "Cavium ThunderX2", "0x46 0x001": "Fujitsu A64FX",
    "0x48 0xd01": "HiSilicon TaiShan-v110 (Kunpeng 920)", "0x48 0xd02": "HiSilicon TaiShan-v120",
    "0x61 0x022": "Apple Icestorm (M1)", "0x61 0x023": "Apple Firestorm (M1)",
    "0x61 0x032": "Apple Blizzard (M2)", "0x61 0x033": "Apple Avalanche (M2)",
    "0x6d 0xd49": "Microsoft Azure Cobalt 100", "0x70 0x663": "Phytium FTC663",
    "0xc0 0xac3": "Ampere-1", "0xc0 0xac4": "Ampere-1a",
}  # fmt: skip


def place(device: str) -> dict:
    """Where something is computed: the node's name, its CPU, and the device's name in it."""
    return {"node": platform.node(), "cpu": cpu_name(), "device": device}


def cpu_name(path: str = CPU) -> str:
    """The CPU's model; of an Arm CPU that is not known, its numbers; several as "a, b"."""
    fields: dict[str, list[str]] = {}
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
        for line in file:
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), []).append(value.strip())
    if "model name" in fields:
        return fields["model name"][0]
    numbers = zip(fields.get("CPU implementer", ()), fields.get("CPU part", ()))
    names = (ARM_CPUS.get(" ".join(pair), "Arm {} {}".format(*pair)) for pair in numbers)
    return ", ".join(dict.fromkeys(names)) or platform.processor() or platform.machine()
