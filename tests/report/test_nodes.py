"""Rows that were timed on different kinds of nodes: said, and their speeds not compared."""

import pytest
from deepspeech2.report import figures, listing, summary
from deepspeech2.report.rows import Row
from helpers import timing_content, write_row

HERE = {"cpu": "A CPU", "cores": 4, "node": "n1", "device": "cpu"}
CPU, GPU = {"torch": "2"}, {"torch": "2", "device": "GPU 1, 80 GB"}
KINDS = {
    "the same": (HERE, CPU, True),
    "another node of the kind": ({**HERE, "node": "n2"}, CPU, True),
    "another CPU": ({**HERE, "cpu": "B <CPU>"}, CPU, False),
    "other cores": ({**HERE, "cores": 8}, CPU, False),
    "a device beside the CPU": ({**HERE, "device": "cuda:0"}, GPU, True),
}


@pytest.fixture(autouse=True)
def texts(monkeypatch):
    one = {"u": {"reference": "YES", "hypothesis": "YES"}}
    monkeypatch.setattr(Row, "transcripts", lambda self: one)


def rows_of(folder, *places):
    """Rows of several engines, timed at these places with these versions."""
    for number, (place, versions) in enumerate(places):
        timing = timing_content()
        timing["environment"] = {**timing["environment"], **place}
        timing["versions"] = versions
        write_row(folder, f"d/m/e{number}/bs1/greedy", timing=timing)
    return [Row(path) for path in sorted(folder.glob("d/m/*/bs1/greedy/record.json"))]


@pytest.mark.parametrize("kind", KINDS)
def test_speeds_of_different_kinds_are_not_compared(tmp_path, kind):
    place, versions, alike = KINDS[kind]
    rows = rows_of(tmp_path, (HERE, CPU), (place, versions))
    table = summary.summarise([row.record for row in rows], {})
    said = [line for line in summary.notes(table, ()) if "nodes of different kinds" in line]
    assert bool(said) == (not alike)
    verdicts = summary.shown(table)["verdict"].tolist()
    assert (verdicts == ["VALID", "VALID"]) == alike
    [line] = listing.engines(rows)
    assert (line["speed_ratio"] is None) == (not alike)
    names = [one.name for one in figures.series_of([row.record for row in rows])]
    assert any("cores" in name for name in names) == (not alike)
    if not alike:
        assert place["cpu"] in said[0] and verdicts[1] == f"VALID ({place['cpu']}, "\
            f"{place['cores']} cores)"  # fmt: skip


def test_two_kinds_of_devices(tmp_path):
    gpu = {**HERE, "device": "cuda:1"}
    rows = rows_of(tmp_path / "1", (gpu, GPU), ({**gpu, "device": "cuda:0"}, GPU))
    assert listing.engines(rows)[0]["speed_ratio"] is not None
    rows = rows_of(tmp_path / "2", (gpu, GPU), (gpu, {**GPU, "device": "GPU 2"}))
    assert listing.engines(rows)[0]["speed_ratio"] is None
    npu = {**HERE, "device": "npu:0"}
    rows = rows_of(tmp_path / "3", (gpu, GPU), (npu, {"driver": "23.0"}))
    assert listing.engines(rows)[0]["speed_ratio"] is not None
