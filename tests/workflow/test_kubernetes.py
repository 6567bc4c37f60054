"""What is for Kubernetes, held against the models of its API. No cluster has run it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, copy_project
from deepspeech2.files import read_sealed
from helpers import assert_one_line_error, snakemake, write_folder, write_safetensors

kubernetes = pytest.importorskip("kubernetes", reason="needs envs/kubernetes.txt")
from fakes import kubernetes_api as api  # noqa: E402

PROFILE = ROOT / "profiles/kubernetes"
JOB, RUN = (list(yaml.safe_load_all((PROFILE / f).read_text())) for f in ("job.yaml", "run.yaml"))
TIMING = "results/own/tiny/cpu/bs2/timing.json"
SCORE = "results/own/tiny/cpu/bs2/greedy/score.json"
SECRETS = "/var/run/secrets/kubernetes.io/serviceaccount"
CONFIG = {
    "run": {"datasets": ["own"], "models": ["tiny"], "engines": ["cpu"], "batch_sizes": [2]},
    "datasets": {"own": {"layout": "folder", "path": "set", "shards": 2}},
    "models": {"tiny": {"checkpoint": "tiny.safetensors"}},
    "engines": {"cpu": {"backend": "native", "padding": "batch"}},
    "timing": {"warmup_batches": 0, "min_batches": 1, "min_seconds": 0},
}


@pytest.mark.parametrize("content", JOB + RUN, ids=lambda content: content["kind"])
def test_the_manifests_are_what_the_api_knows(content):
    api.require_known(content, f"V1{content['kind']}")
    assert api.NAME.fullmatch(content["metadata"]["name"])


@pytest.mark.parametrize("manifest", [JOB, RUN], ids=["job", "run"])
def test_the_pod_has_its_volume_and_no_rights(manifest):
    claim, job = manifest[0], manifest[-1]
    pod = job["spec"]["template"]["spec"]
    api.require_pod(pod)
    [container] = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/work", "/tmp"}
    claims = [v["persistentVolumeClaim"] for v in volumes.values() if "emptyDir" not in v]
    assert claims == [{"claimName": claim["metadata"]["name"]}]
    assert pod["securityContext"]["runAsNonRoot"] and pod["restartPolicy"] == "Never"
    assert container["resources"]["requests"] == container["resources"]["limits"]


def test_who_sends_jobs_may_do_that_alone():
    [role] = (content for content in RUN if content["kind"] == "Role")
    allowed = {
        (r, verb) for rule in role["rules"] for r in rule["resources"] for verb in rule["verbs"]
    }
    assert allowed == {
        ("pods", "get"), ("jobs", "create"), ("jobs", "delete"), ("jobs/status", "get"),
    }  # fmt: skip


@pytest.mark.parametrize("place", ["containers", "volumes"])
def test_what_the_api_does_not_know_is_refused(place):
    content = json.loads(json.dumps(JOB[1]))
    content["spec"]["template"]["spec"][place][0]["nmae"] = "a"
    with pytest.raises(AssertionError, match=rf"{place}\[0\]: unknown field nmae"):
        api.require_known(content, "V1Job")


def pod_of(mount):
    """The pod of run.yaml as the API shows it, with its volume at `mount`."""
    spec = json.loads(json.dumps(RUN[-1]["spec"]["template"]["spec"]))
    [container] = spec["containers"]
    container["volumeMounts"][0]["mountPath"] = str(mount)
    secrets = {"name": "kube-api-access-abcde", "mountPath": SECRETS}
    container["volumeMounts"].append({**secrets, "readOnly": True})
    spec["volumes"].append({"name": secrets["name"], "projected": {"sources": []}})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "deepspeech2-abcde"},
        "spec": spec,
    }


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    path = os.pathsep.join([str(PROFILE), str(Path(sys.executable).parent), os.environ["PATH"]])
    made = api.Cluster(pod_of(tmp_path), path)
    server = api.serve(made)
    config = {
        "current-context": "fake",
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        "clusters": [
            {"name": "fake", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        ],
        "users": [{"name": "fake", "user": {"token": api.TOKEN}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POD_NAME", "deepspeech2-abcde")
    monkeypatch.setenv("POD_NAMESPACE", api.NAMESPACE)
    yield made
    server.shutdown()
    for name in list(made.processes):
        made.remove(name)


def pods(*words, **environment):
    return subprocess.run(
        [sys.executable, PROFILE / "pods.py", *map(str, words)],
        capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip


def script_of(folder, **needs):
    path = folder / "job.sh"
    needs = {"rule": "infer", "threads": 2, "resources": {"mem_mb": 700, "runtime": 5}, **needs}
    path.write_text(f"#!/bin/sh\n# properties = {json.dumps(needs)}\nexit 0\n")
    return path


def test_shards_run_as_pods(tmp_path, cluster):
    """One of which is killed, and comes again."""
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    project = copy_project(tmp_path / "checkout")
    write_folder(project / "set", "YES GO STOP LEFT".split())
    write_safetensors(project / "tiny.safetensors")
    (project / "own.yaml").write_text(yaml.safe_dump(CONFIG))
    cluster.to_kill.add("compile")
    snakemake(
        project, "--workflow-profile", "profiles/kubernetes", "--cores", 2, "--max-threads", 2,
        "--latency-wait", 5, "--seconds-between-status-checks", 1, "--configfile", "own.yaml", "--",
        TIMING, SCORE,
        timeout=900,
    )  # fmt: skip
    assert (project / TIMING).exists()
    assert read_sealed(project / SCORE)["utterances"] == 4
    assert not cluster.to_kill
    asked = {}
    for name, job in cluster.asked.items():
        asked.setdefault(name.rpartition("-")[0].removeprefix("deepspeech2-"), []).append(job)
    assert len(asked["compile"]) == 2 and {"timing", "convert", "corpus"} <= set(asked)
    for name, jobs in asked.items():
        for job in jobs:
            pod = job["spec"]["template"]["spec"]
            assert ("affinity" in pod) == (name == "timing"), name
            assert not pod["automountServiceAccountToken"]
            [container] = pod["containers"]
            assert {m["mountPath"] for m in container["volumeMounts"]} == {str(tmp_path), "/tmp"}
            assert container["image"] == "deepspeech2:latest"
            assert pod["securityContext"]["runAsNonRoot"]
    [timing] = asked["timing"]
    [container] = timing["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["cpu"] == "2"


def test_devices_are_asked_for_by_the_clusters_names(tmp_path, cluster):
    for resources, environment, expected in (
        ({"gpu": 1}, {}, {"nvidia.com/gpu": "1"}),
        ({"gres": "npu:1"}, {}, {"huawei.com/Ascend310P": "1"}),
        ({"gres": "npu:2"}, {"POD_NPU": "huawei.com/Ascend910"}, {"huawei.com/Ascend910": "2"}),
        ({}, {}, {}),
    ):
        needs = {"mem_mb": 700, "runtime": 5, **resources}
        made = pods("submit", script_of(tmp_path, resources=needs), **environment)
        assert made.returncode == 0, made.stderr
        pod = cluster.asked[made.stdout.strip()]["spec"]["template"]["spec"]
        asked = pod["containers"][0]["resources"]["requests"]
        assert asked == {"cpu": "2", "memory": "700M", **expected}


def test_what_became_of_a_job(tmp_path, cluster):
    script = script_of(tmp_path, groupid="Own set_1of3", rule=None)
    name = pods("submit", script).stdout.strip()
    assert name.startswith("deepspeech2-own-set-1of3-")
    cluster.processes[name].wait()
    assert pods("status", name).stdout == "success\n"
    script.write_text(script.read_text().replace("exit 0", "exit 3"))
    name = pods("submit", script).stdout.strip()
    cluster.processes[name].wait()
    assert pods("status", name).stdout == "failed\n"
    script.write_text(script.read_text().replace("exit 3", "sleep 100"))
    name = pods("submit", script).stdout.strip()
    assert pods("status", name).stdout == "running\n"
    assert pods(name, name).returncode == 0  # cancelled; the second time it is not there
    assert not (set(cluster.processes) & {name})
    assert pods("status", name).stdout == "failed\n"


def test_an_api_that_is_away_is_asked_again(tmp_path, cluster):
    name = pods("submit", script_of(tmp_path)).stdout.strip()
    cluster.processes[name].wait()
    cluster.refuse.append(503)
    away = pods("status", name)
    assert away.stdout == "running\n" and "answers 503; asked again" in away.stderr
    assert pods("status", name).stdout == "success\n"


def test_what_is_refused_is_one_line(tmp_path, cluster):
    script = script_of(tmp_path)
    cluster.refuse.append(403)
    assert_one_line_error(pods("submit", script), "403")
    assert_one_line_error(pods("submit", script, POD_NAME="other"), "404")
    assert_one_line_error(pods("submit", script_of(tmp_path, threads="many")), "422")
    script.write_text("exit 0\n")
    assert_one_line_error(pods("submit", script), "does not say what the job needs")
    assert_one_line_error(pods("submit", script, KUBECONFIG="/none"), "ConfigException")
    assert_one_line_error(pods("submit", tmp_path / "absent"), "absent")
