"""A power cut at any moment: a rerun comes to the same bytes, or nothing was lost.

A run's folder is on a file system in an image. The image as it is at some moment is what the disk
would have after a cut: what the system holds back is not in it. The suite cuts at a run's end,
where most is held back; `make faults N=20` cuts at so many moments, too.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from helpers import snakemake, write_folder, write_safetensors

MOMENTS = int(os.environ.get("N") or 0)  # make exports an empty N
SIZE = 64 << 20  # bytes of the image
ACCURACY = ("posteriors.bin", "transcripts.jsonl", "score.json", "agreement.json", "model.json")
SNAKEFILE = ("--snakefile", ROOT / "Snakefile", "--configfile", "own.yaml", "--cores", 2)


class Disk:
    """A file system in an image, mounted while it is used."""

    def __init__(self, image: Path, folder: Path):
        self.image, self.folder = image, folder
        folder.mkdir(exist_ok=True)

    def __enter__(self) -> Path:
        subprocess.run(["mount", "-o", "loop", self.image, self.folder], check=True)
        return self.folder

    def __exit__(self, *_) -> None:
        for _ in range(100):  # it is busy until the last of the killed processes has ended
            done = subprocess.run(["umount", self.folder], capture_output=True, text=True)
            if done.returncode == 0:
                return
            time.sleep(0.3)
        raise OSError(done.stderr)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """An image with what a run needs."""
    folder = tmp_path_factory.mktemp("power")
    disk = Disk(folder / "prepared.img", folder / "mnt")
    with open(disk.image, "wb") as file:
        file.truncate(SIZE)
    made = shutil.which("mkfs.ext4") and os.geteuid() == 0
    if not made or subprocess.run(["mkfs.ext4", "-q", disk.image], check=False).returncode:
        pytest.skip("needs root and mkfs.ext4")
    try:
        with disk as place:
            write_folder(place / "recordings")
            write_safetensors(place / "tiny.safetensors")
            config = {
                "run": {"datasets": ["own"], "models": ["tiny"], "engines": ["cpu-fp32"],
                        "batch_sizes": [2]},
                "datasets": {"own": {"layout": "folder", "path": "recordings"}},
                "models": {"tiny": {"checkpoint": "tiny.safetensors"}},
                "timing": {"warmup_batches": 0, "min_batches": 1, "min_seconds": 0},
            }  # fmt: skip
            (place / "own.yaml").write_text(yaml.safe_dump(config))
    except subprocess.CalledProcessError:
        pytest.skip("no loop devices here")
    return disk.image


@pytest.fixture(scope="module")
def whole(prepared):
    """The seconds that a run takes, and what it makes."""
    folder = prepared.parent
    with Disk(shutil.copy(prepared, folder / "whole.img"), folder / "mnt") as place:
        start = time.monotonic()
        snakemake(place, *SNAKEFILE)
        return time.monotonic() - start, results(place)


def results(folder: Path) -> dict[str, str]:
    """Hashes of the accuracy files; the table and the report must be whole."""
    assert (folder / "results/report.html").read_text().endswith("</html>\n")
    assert (folder / "results/table.md").stat().st_size
    paths = (p for p in (folder / "results").rglob("*") if p.name in ACCURACY)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def start(place: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "snakemake", *map(str, SNAKEFILE)]
    return subprocess.Popen(
        command, cwd=place, stderr=subprocess.DEVNULL, start_new_session=True
    )  # fmt: skip


def snapshot(image: Path) -> Disk:
    """The disk as it is if the power is cut now."""
    cut = image.with_name("cut.img")
    subprocess.run(["cp", "--sparse=always", image, cut], check=True)
    return Disk(cut, image.with_name("cut"))


def test_a_power_cut_at_the_end_loses_nothing(prepared, tmp_path):
    disk = Disk(shutil.copy(prepared, tmp_path / "run.img"), tmp_path / "run")
    with disk as place:
        assert start(place).wait() == 0
        cut = snapshot(disk.image)
        expected = results(place)
    with cut as place:
        snakemake(place, *SNAKEFILE, "--unlock")
        done = snakemake(place, *SNAKEFILE)
        assert "Nothing to be done" in done.stdout + done.stderr
        assert results(place) == expected


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_rerun_after_a_power_cut(prepared, whole, tmp_path, moment):
    seconds, expected = whole
    disk = Disk(shutil.copy(prepared, tmp_path / "run.img"), tmp_path / "run")
    with disk as place:
        run = start(place)
        time.sleep(random.Random(moment).uniform(0.2, 1.1) * seconds)
        cut = snapshot(disk.image)
        os.killpg(run.pid, signal.SIGKILL)  # Snakemake with its jobs
        run.wait()
    with cut as place:
        snakemake(place, *SNAKEFILE, "--unlock")
        snakemake(place, *SNAKEFILE)
        assert results(place) == expected
