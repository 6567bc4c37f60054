"""Shards and samples: what any set is cut into, whatever its lengths."""

import numpy as np
import pytest
from deepspeech2.cli import UserError
from deepspeech2.features import parts
from helpers import LABELS, write_folder

KINDS = {
    "speech": lambda random, n: random.lognormal(6, 0.7, n),
    "equal": lambda random, n: np.full(n, 300),
    "one very long": lambda random, n: [100_000, *[30] * (n - 1)],
    "two lengths": lambda random, n: np.repeat([3000, 30], [n // 2, n - n // 2]),
}


def utterances_of(kind, count):
    frames = KINDS[kind](np.random.default_rng(count), count)
    return [{"frames": int(n) + 1} for n in sorted(frames, reverse=True)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 3, 7, 50, 1000])
def test_shards_cover_the_set_in_order_and_none_is_empty(kind, count):
    utterances = utterances_of(kind, count)
    for shards in {1, 2, 3, 7, count} & set(range(1, count + 1)):
        cut = parts.cut(utterances, shards)
        assert len(cut) == shards and all(cut)
        assert [position for part in cut for position in part] == [*range(count)]
        by_name = [parts.positions(utterances, n, 1) for n in parts.shard_names(shards)]
        assert by_name == cut


@pytest.mark.parametrize("kind", ["speech", "equal", "two lengths"])
def test_shards_have_about_equal_audio(kind):
    utterances = utterances_of(kind, 1000)
    for shards in (2, 7, 64):
        sums = [sum(utterances[p]["frames"] for p in c) for c in parts.cut(utterances, shards)]
        longest = utterances[0]["frames"]
        assert max(sums) - min(sums) <= 2 * longest


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2, 3, 10, 100, 999, 1000, 5000])
def test_a_sample_has_the_longest_and_all_lengths(kind, size):
    utterances = utterances_of(kind, 1000)
    sample = list(parts.sample(utterances, size))
    assert sample == list(parts.sample(utterances, size)) == sorted(set(sample))
    assert len(sample) == min(size, 1000) and sample[0] == 0
    if size >= 100:  # one of every stratum: the mean of the others is that of all others
        means = [np.mean([utterances[p]["frames"] for p in s[1:]]) for s in (sample, range(1000))]
        assert means[0] == pytest.approx(means[1], rel=0.05)


@pytest.mark.parametrize("name", ["0of3", "4of3", "3", "of", "sample2", "01of3", ""])
def test_other_names_are_refused(name):
    with pytest.raises(UserError, match="not a part"):
        parts.positions(utterances_of("equal", 5), name, 1)


def test_more_shards_than_utterances_are_refused():
    with pytest.raises(UserError, match="4 shards of 3 utterances"):
        parts.cut(utterances_of("equal", 3), 4)


def test_a_part_of_features_is_as_if_made_alone(tmp_path):
    from deepspeech2.features import measure, preprocess
    from deepspeech2.features.batches import Batches, FeatureSet
    from deepspeech2.features.spectrogram import Spectrogram
    from deepspeech2.files import write_json
    from test_preprocess import write_manifest

    settings = measure.Settings(LABELS, Spectrogram(), False)
    texts = [letter * (2 + number) for number, letter in enumerate("ABCDEFG")]
    manifest = write_manifest(write_folder(tmp_path / "set", texts))
    jobs, sets, chosen, places = measure.jobs_of(manifest, settings), {}, None, None
    for name in ("whole", "2of3"):
        (tmp_path / name).mkdir()
        taken = jobs if chosen is None else [jobs[places[p]] for p in chosen]
        index = preprocess.preprocess(manifest, taken, settings, tmp_path / name, 1)
        write_json(tmp_path / f"{name}.json", index)
        sets[name] = FeatureSet(tmp_path / name, tmp_path / f"{name}.json")
        if chosen is None:
            chosen = parts.positions(index["utterances"], "2of3", 1)
            places = [u["manifest_position"] for u in index["utterances"]]
    found = sets["whole"].part(chosen)
    assert len(found) == len(sets["2of3"]) > 1 and found.frames_max == sets["2of3"].frames_max
    for one, other in zip(Batches(found, 2, "longest"), Batches(sets["2of3"], 2, "longest")):
        np.testing.assert_array_equal(one.spectrograms, other.spectrograms)
        np.testing.assert_array_equal(one.lengths, other.lengths)
