"""Nothing that is damaged makes a wrong figure, a traceback or a mess: `make fuzz N=100000`."""

import os
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

import driver

CASES = int(os.environ.get("N") or 50)  # make exports an empty N


@pytest.mark.parametrize("name", driver.READERS)
def test_damage_is_read_to_the_same_or_refused_in_one_line(name):
    if driver.missing(name):
        pytest.skip(f"needs {driver.missing(name)} (envs/)")
    found = driver.run(name, CASES, seed=0)
    assert sum(found["counts"].values()) == CASES
    assert not found["findings"], "\n\n".join(map(str, found["findings"][:3]))


def test_the_driver_finds_what_it_looks_for(monkeypatch):
    """A reader with a fault of each kind."""
    kinds = {
        "traceback": lambda folder: 1 / 0,
        "crash": lambda folder: os.abort(),
        "slow": lambda folder: [None for _ in iter(int, 1)],
        "memory": lambda folder: b"x" * (driver.BYTES + (64 << 20)) and b"whole",
        "no line": lambda folder: (_ for _ in ()).throw(_Unprintable("x")),
        "escape": lambda folder: (folder.parent / "elsewhere").write_text("") or b"whole",
        "left over": lambda folder: (folder / ".a.1.tmp").write_text("") or b"whole",
        "changed": lambda folder: (folder / "a").read_bytes(),
    }
    assert set(kinds) == set(driver.FINDINGS)
    for kind, fault in kinds.items():
        monkeypatch.setattr(driver, "SECONDS", 0.5 if kind == "slow" else 60)

        def read(folder, fault=fault):
            whole = (folder / "a").read_bytes() == b"whole"
            return b"whole" if whole else fault(folder)

        def make(folder):
            (folder / "a").write_bytes(b"whole")
            return [folder / "a"]

        driver.READERS["faulty"] = driver.Reader(make, read, lambda *_: b"damaged", keeps=True)
        try:
            assert driver.run("faulty", 1, seed=0)["counts"] == {kind: 1}
        finally:
            del driver.READERS["faulty"]


class _Unprintable(driver.UserError):
    def __str__(self):
        return "two\nlines"
