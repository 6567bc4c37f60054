"""What is asked of clusters: by rules in a dry run, and by jobs that stand-ins take and run."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, copy_project
from helpers import snakemake, write_folder, write_safetensors

CONFIG = {
    "run": {"datasets": ["own"], "models": ["tiny"], "engines": ["cpu"], "batch_sizes": [2]},
    "datasets": {"own": {"layout": "folder", "path": "set", "shards": 3}},
    "models": {"tiny": {"checkpoint": "tiny.safetensors"}},
    "engines": {
        "cpu": {"backend": "native", "padding": "batch"},
        "gpu": {"backend": "torchscript", "device": "cuda:0"},
        "gpus": {"backend": "torchscript", "device": "cuda:*"},
        "npu": {"backend": "torchscript", "device": "npu:0"},
    },
    "timing": {"warmup_batches": 0, "min_batches": 1, "min_seconds": 0},
}
SLURM = "sbatch squeue srun sinfo scontrol scancel".split()
PROFILES = {
    path.parent.name: yaml.safe_load(path.read_text())
    for path in sorted((ROOT / "profiles").glob("*/config.yaml"))
}
CLUSTERS = {name: profile for name, profile in PROFILES.items() if "executor" in profile}
SOON = ("--seconds-between-status-checks", 1)
TIMING = "results/own/tiny/cpu/bs2/timing.json"


@pytest.fixture
def project(tmp_path):
    folder = copy_project(tmp_path / "checkout")
    write_folder(folder / "set", "YES GO STOP LEFT".split())
    write_safetensors(folder / "tiny.safetensors")
    (folder / "own.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder


def resources(project, *options):
    """What jobs would ask for, by rule and engine; of several, the one of most memory."""
    text = snakemake(project, "-n", "--cores", 8, "--configfile", "own.yaml", *options).stdout
    found = {}
    for block in re.split(r"(?m)^ *\[.*\]$|Group job", text):
        rule = re.search(r"^ *rule (\w+):$", block, re.M)
        asked = re.search(r"^ *resources: (.*)$", block, re.M)
        if rule and asked:
            engine = re.search(r"engine=(\w+)", block)
            threads = re.search(r"^ *threads: (\d+)$", block, re.M)
            pairs = dict(pair.split("=") for pair in asked[1].split(", "))
            pairs["threads"] = int(threads[1]) if threads else 1
            key = rule[1], engine and engine[1]
            if key not in found or int(pairs["mem_mb"]) > int(found[key]["mem_mb"]):
                found[key] = pairs
    return found


def test_every_rule_says_what_it_needs_and_devices_are_asked_for(project):
    engines = list(CONFIG["engines"])
    changed = {**CONFIG, "run": {**CONFIG["run"], "engines": engines}}
    (project / "own.yaml").write_text(yaml.safe_dump(changed))
    found = resources(project)
    assert {rule for rule, _ in found} >= {"corpus", "plan", "infer", "timing", "gather", "page"}
    for (rule, _), asked in found.items():
        if rule != "default":
            assert int(asked["mem_mb"]) >= 200 and int(asked["runtime"]) >= 30, rule
    for rule in ("compile", "infer", "timing"):
        assert {e: found[rule, e].get("gpu") for e in engines} == {
            "cpu": None, "gpu": "1", "gpus": "1", "npu": None,
        }  # fmt: skip
        assert {e: found[rule, e].get("gres") for e in engines} == {
            "cpu": None, "gpu": None, "gpus": None, "npu": "npu:1",
        }  # fmt: skip
    text = snakemake(project, "-n", "--configfile", "own.yaml").stdout
    groups = re.findall(r"Group job own_tiny_1of3 .*?(?=^\[)", text, re.M | re.S)
    assert len(groups) == 1 and "engine=cpu" in groups[0] and "engine=gpu" not in groups[0]
    # A job alone has all cores; with a pool of devices accuracy runs go side by side.
    assert {e: found["infer", e]["threads"] for e in engines} == {
        "cpu": 1, "gpu": 8, "gpus": 1, "npu": 8,
    }  # fmt: skip
    assert {found["timing", e]["threads"] for e in ("cpu", "npu")} == {8}


def test_memory_grows_with_what_is_there(project):
    before = int(resources(project)["infer", "cpu"]["mem_mb"])
    compiled = project / "results/own/tiny/cpu/bs2/compiled.json"
    compiled.parent.mkdir(parents=True)
    shapes = [{"batch_size": 2, "bins": 161, "frames": frames} for frames in (100, 50_000)]
    compiled.write_text(json.dumps({"bytes": 100_000_000, "shapes": shapes}) + "\n")
    after = int(resources(project)["infer", "cpu"]["mem_mb"])
    assert after - before == 400 + 3000
    for broken in ("{}\n", "not JSON\n", '{"shapes": []}\n'):
        compiled.write_text(broken)
        assert int(resources(project)["infer", "cpu"]["mem_mb"]) == before


def test_slurm_is_asked_for_what_jobs_need(project, tmp_path, monkeypatch):
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="needs envs/slurm.txt")
    programs, state = tmp_path / "programs", tmp_path / "state"
    programs.mkdir()
    state.mkdir()
    for name in SLURM:
        (programs / name).symlink_to(ROOT / "tests/fakes/slurm/slurm.py")
    monkeypatch.setenv("PATH", f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(state))
    snakemake(
        project, "--workflow-profile", "profiles/slurm", "--cores", 2, "--max-threads", 2,
        "--slurm-init-seconds-before-status-checks", 1, "--slurm-status-command", "squeue",
        "--slurm-no-account", "--latency-wait", 2, *SOON, "--configfile", "own.yaml", "--", TIMING,
        "results/own/tiny/parts/1of3/eager/posteriors.bin",
    )  # fmt: skip
    assert (project / TIMING).exists()
    asked = [json.loads(line) for line in (state / "jobs.jsonl").read_text().splitlines()]
    by_job = {job["comment"].removeprefix("rule_"): job for job in asked}
    starts = sorted(name.partition("_wildcards")[0] for name in by_job)
    assert starts == [
        "compile", "convert", "corpus", "own_tiny_1of3_eager_preprocess_part",
        "own_tiny_sample_infer_preprocess_part", "timing",
    ]  # fmt: skip
    for name, job in by_job.items():
        assert job["exclusive"] == name.startswith("timing")
        of_part = "preprocess_part" in name  # one core works at a shard, up to posteriors
        assert job["cpus_per_task"] <= (1 if of_part else 2)
        assert job["gpus"] is None and job["gres"] is None
    [timing] = (job for name, job in by_job.items() if name.startswith("timing"))
    assert timing["cpus_per_task"] == 2 and timing["mem"] > 600


def test_other_schedulers_are_given_what_jobs_need(project, tmp_path):
    pytest.importorskip("snakemake_executor_plugin_cluster_generic", reason="needs envs/slurm.txt")
    asked = tmp_path / "asked"
    submit = f"echo {{rule}} {{threads}} {{resources.mem_mb}} {{resources.runtime}} >> {asked}; sh"
    index = "results/models/tiny/model.json"
    snakemake(
        project, "--workflow-profile", "profiles/generic", "--cluster-generic-submit-cmd", submit,
        "--cores", 2, "--latency-wait", 2, *SOON, "--configfile", "own.yaml", "--", index,
    )  # fmt: skip
    assert (project / index).exists()
    assert asked.read_text().split() == ["convert", "1", "300", "30"]


@pytest.mark.parametrize("name", CLUSTERS)
def test_timing_has_the_cores_that_a_cluster_profile_says(project, name):
    """Not those of the machine that submits, which the profile loaded by itself would say."""
    profile = CLUSTERS[name]
    plugin = f"snakemake_executor_plugin_{profile['executor'].replace('-', '_')}"
    pytest.importorskip(plugin, reason=f"needs {plugin}")
    if (cores := profile["cores"]) == os.cpu_count():
        pytest.skip("this machine has as many cores as the profile says")
    text = snakemake(
        project, "-n", "--workflow-profile", f"profiles/{name}", "--configfile", "own.yaml"
    ).stdout
    [timing] = re.findall(r"^rule timing:\n(?:  .*\n)+", text, re.M)
    assert f"threads: {cores}\n" in timing


def test_profiles_name_rules_that_there_are():
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    for path in (ROOT / "profiles").glob("*/config*.yaml"):
        for name in yaml.safe_load(path.read_text()).get("set-resources", {}):
            assert re.search(rf"^(use rule \w+ as |rule ){name}\b", rules, re.M), (path, name)


def test_files_that_show_up_late_with_dates_of_other_clocks(project, tmp_path, monkeypatch):
    """What jobs wrote has the date at which Snakemake saw them end: nothing is made twice."""
    pytest.importorskip("snakemake_executor_plugin_cluster_generic", reason="needs envs/slurm.txt")
    plain, log = tmp_path / "plain", tmp_path / "nodes"
    shutil.copytree(project, plain)
    score = "results/own/tiny/cpu/bs2/greedy/score.json"
    snakemake(plain, "--cores", 2, "--configfile", "own.yaml", "--", score)
    monkeypatch.setenv("SKEWED_NODES", str(log))
    monkeypatch.setenv("LATE", "3")
    options = [
        "--workflow-profile", "profiles/generic", "--cores", 2, "--jobs", 1, "--latency-wait", 60,
        *SOON, "--configfile", "own.yaml", "--cluster-generic-submit-cmd",
        f"{sys.executable} {ROOT / 'tests/fakes/skewed_node.py'}", "--", score,
    ]  # fmt: skip
    snakemake(project, *options)
    lines = log.read_text().splitlines()
    assert set(lines) == {"300 0", "-300 0"} and len(lines) >= 6
    assert (project / score).read_bytes() == (plain / score).read_bytes()
    again = snakemake(project, "-n", *options)
    assert "Nothing to be done" in again.stdout + again.stderr


def test_jobs_run_in_the_image_that_is_named(project, tmp_path, monkeypatch):
    """By a stand-in for Apptainer."""
    programs, calls = tmp_path / "programs", tmp_path / "calls"
    programs.mkdir()
    program = (ROOT / "tests/fakes/apptainer.py").read_text().partition("\n")[2]
    (programs / "apptainer").write_text(f"#!{sys.executable}\n{program}")
    (programs / "apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_APPTAINER", str(calls))
    (project / "image.sif").write_text("")
    index = "results/models/tiny/model.json"
    options = ["--cores", 2, "--sdm", "apptainer", "--configfile", "own.yaml"]
    refused = snakemake(project, *options, "--", index, check=False)
    assert "config: container: --sdm apptainer needs an image; name one" in refused.stderr
    named = [*options, "--config", "container=image.sif", "--", index]
    snakemake(project, *named)
    assert (project / index).exists() and "image.sif" in calls.read_text()


@pytest.mark.parametrize("name", ["a.sif;x", "$(x).sif", "-x", "a b.sif", "`x`", ""])
def test_no_name_of_an_image_is_a_command(project, name):
    (project / "named.yaml").write_text(yaml.safe_dump({"container": name}))
    refused = snakemake(project, "-n", "--configfile", "own.yaml", "named.yaml", check=False)
    assert refused.returncode != 0 and "config: container" in refused.stdout + refused.stderr
