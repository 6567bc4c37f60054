# What jobs need, for clusters; on one machine memory and time are only shown. Anything of it can be
# set otherwise: --set-resources infer:mem_mb=8000 (docs/clusters.md). Rules with `localrule` are never
# sent anywhere: downloads, since nodes may have no network, and what takes a moment.
#
# MB and minutes by rule, two to ten times what was measured on AN4 (results/benchmarks has it for
# every job). Where memory grows with a file that is there before the job, PER_BYTE says how.
NEEDS = {
    "fetch": (200, 240),
    "corpus": (600, 240),
    "manifest": (200, 30),
    "features": (400, 120),
    "convert": (300, 30),
    "export": (800, 30),
    "compile": (1000, 120),
    "eager": (900, 480),
    "infer": (600, 480),
    "decode": (400, 240),
    "score": (400, 60),
    "timing": (600, 480),
    "report": (1000, 60),
    "learn": (4000, 2880),
}
# Bytes of memory for each of a file's, by the input's name: an index or transcripts as Python holds
# them, weights in several precisions.
PER_BYTE = {
    "manifest": 12,
    "plan": 12,
    "index": 15,
    "source": 8,
    "weights": 6,
    "transcripts": 12,
    "parts_indexes": 12,
    "language_model": 6,
}
PER_ROW_FRAME = 30_000  # bytes of a network's activations for each frame of each row of a batch


def needs(kind):
    """Resources of a rule's jobs: memory and time, more at each attempt, and an engine's device."""
    megabytes, minutes = NEEDS[kind]
    found = {
        "mem_mb": lambda wildcards, input, attempt: attempt * (megabytes + grown(input) // 10**6),
        "runtime": lambda wildcards, attempt: attempt * minutes,
    }
    if kind in ("compile", "infer", "timing"):
        found["gpu"] = lambda wildcards: 1 if device_kind(wildcards.engine) == "cuda" else None
        found["gres"] = lambda wildcards: (
            "npu:1" if device_kind(wildcards.engine) == "npu" else None
        )
    return found


def device_kind(name):
    """What an engine computes on: cpu, cuda or npu."""
    return engine(name).device.partition(":")[0]


def grown(files):
    """Bytes that a job's memory grows by with its input, as far as that is there."""
    total = 0
    for name, factor in PER_BYTE.items():
        paths = files.get(name) or []
        for path in [paths] if isinstance(paths, str) else paths:
            if os.path.exists(path):
                total += factor * os.path.getsize(path)
    paths = files.get("artefact_index") or []
    for path in [paths] if isinstance(paths, str) else paths:
        try:
            compiled = json.loads(Path(path).read_text())
            rows = max(shape["batch_size"] * shape["frames"] for shape in compiled["shapes"])
            total += 4 * compiled["bytes"] + PER_ROW_FRAME * rows
        except (OSError, ValueError, LookupError, TypeError):
            pass  # the stage says what is wrong with it
    return total
