"""The file of posteriors."""

import numpy as np
import pytest
from deepspeech2.cli import UserError
from deepspeech2.model import posteriors as posteriors_file
from helpers import posteriors_of


def test_posteriors_file_keeps_what_it_is_given(tmp_path):
    given = {"a": posteriors_of("ABC"), "ü b": posteriors_of("D"), "c": posteriors_of("EF_F")}
    paths = tmp_path / "p.bin", tmp_path / "p.json"
    assert posteriors_file.write(*paths, iter(given.items()), {"engine": "x"}) == 3
    found = dict(posteriors_file.read(*paths))
    assert list(found) == list(given)
    for name, rows in given.items():
        np.testing.assert_array_equal(found[name], rows)
    data = paths[0].read_bytes()
    paths[0].write_bytes(data[:-1] + b"\x00")
    with pytest.raises(UserError, match=r"p.bin: altered.*snakemake --cores all --force .*p.json"):
        dict(posteriors_file.read(*paths))


def test_nan_in_the_output_leaves_no_file(tmp_path):
    bad = posteriors_of("AB")
    bad[1, 3] = np.nan
    paths = tmp_path / "p.bin", tmp_path / "p.json"
    with pytest.raises(UserError, match=r"utterance b.*NaN"):
        posteriors_file.write(*paths, iter([("a", posteriors_of("A")), ("b", bad)]), {})
    assert not list(tmp_path.iterdir())
