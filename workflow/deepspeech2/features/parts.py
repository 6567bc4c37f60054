"""Parts of a set of utterances: shards, which cover it, and a sample of it, which is timed.

All of them are functions of the set's index and of numbers in the configuration, so that every
stage finds the same ones. Sets and parts are in the features' order, longest utterance first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepspeech2 import files
from deepspeech2.cli import UserError

SAMPLE = "sample"  # the name of that part; shards are named 1of3, 2of3, 3of3
SEED = 20260101


def shard_names(shards: int) -> list[str]:
    """The names of so many shards, in order."""
    return [f"{number}of{shards}" for number in range(1, shards + 1)]


def cut(utterances: Sequence[dict], shards: int) -> list[range]:
    """Positions of each shard: contiguous, of about equal frames, none without an utterance."""
    if shards > len(utterances):
        raise UserError(
            f"{shards} shards of {len(utterances)} utterances would leave some empty; set fewer"
        )
    ends = np.cumsum([utterance["frames"] for utterance in utterances])
    # An utterance belongs to the shard that its middle falls into.
    middles = ends - np.diff(ends, prepend=0) / 2
    wanted = ends[-1] / shards * np.arange(1, shards)
    edges = np.searchsorted(middles, wanted).tolist()
    for shard in range(shards - 1):
        edges[shard] = max(edges[shard], edges[shard - 1] + 1 if shard else 1)
    for shard in reversed(range(shards - 1)):
        last = edges[shard + 1] if shard < shards - 2 else len(utterances)
        edges[shard] = min(edges[shard], last - 1)
    return [range(*pair) for pair in zip([0, *edges], [*edges, len(utterances)])]


def sample(utterances: Sequence[dict], size: int) -> Sequence[int]:
    """Positions of at most `size` utterances: the longest, and one of each stratum of length.

    The strata are of equal count, and who stands for one is drawn with a fixed seed. The longest
    is always there, since others are padded to it.
    """
    if len(utterances) <= size:
        return range(len(utterances))
    edges = np.linspace(1, len(utterances), size).round().astype(int).tolist()
    draw = np.random.default_rng(SEED).integers
    return [0, *(int(draw(*pair)) for pair in zip(edges, edges[1:]))]


def positions(utterances: Sequence[dict], part: str, size: int) -> Sequence[int]:
    """Positions of a part by its name; `size` is that of a sample."""
    if part == SAMPLE:
        return sample(utterances, size)
    found = re.fullmatch(r"([1-9]\d*)of([1-9]\d*)", part)
    if not found or int(found[1]) > int(found[2]):
        raise UserError(f"{part!r}: not a part; parts are {SAMPLE} and shards, as 2of3")
    return cut(utterances, int(found[2]))[int(found[1]) - 1]


def computed(utterances: Sequence[dict], shards: int, size: int) -> list[Sequence[int]]:
    """Positions of each part that is computed: shards or the whole, and what is timed of it."""
    timed = sample(utterances, size)
    found = cut(utterances, shards)
    return found if shards == 1 and len(timed) == len(utterances) else [*found, timed]


def require_all(names: list[str], features_index: Path, where: Path) -> None:
    """Refuse ids that are not exactly those of the features, in their order."""
    expected = [u["id"] for u in files.read_sealed(features_index)["utterances"]]
    if names == expected:
        return
    wrong = sorted(set(expected) - set(names)) or sorted(set(names) - set(expected))
    raise UserError(
        f"{where}: shards together have {len(names)} utterances, {len(expected)} are expected"
        f"{f'; {wrong[0]!r} is one of {len(wrong)} that differ' if wrong else ''}; "
        f"{files.remedy(where)}"
    )
