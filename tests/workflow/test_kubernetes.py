"""The manifest for Kubernetes, held against the models of its API. No cluster has run it."""

import json

import pytest
import yaml
from conftest import ROOT

kubernetes = pytest.importorskip("kubernetes", reason="needs envs/oracles.txt")

MANIFEST = list(yaml.safe_load_all((ROOT / "profiles/kubernetes/job.yaml").read_text()))
MODELS = {"PersistentVolumeClaim": "V1PersistentVolumeClaim", "Job": "V1Job"}


def require_known(content, model):
    """Refuse fields that the API's model of an object does not have, at any depth."""
    api = kubernetes.client.ApiClient()

    class Answer:
        data = json.dumps(content)

    read = api.sanitize_for_serialization(api.deserialize(Answer, model))

    def compare(given, known, where):
        if isinstance(given, dict) and isinstance(known, dict):
            for key, value in given.items():
                # What is empty the models leave out.
                assert key in known or value in ({}, []), f"{where}: unknown field {key}"
                compare(value, known.get(key, value), f"{where}.{key}")
        elif isinstance(given, list) and isinstance(known, list):
            assert len(given) == len(known), where
            for number, pair in enumerate(zip(given, known)):
                compare(*pair, f"{where}[{number}]")
        else:
            assert given == known, where

    compare(content, read, model)


@pytest.mark.parametrize("content", MANIFEST, ids=lambda content: content["kind"])
def test_the_manifest_is_what_the_api_knows(content):
    require_known(content, MODELS[content["kind"]])


def test_the_pod_has_its_volume_and_no_rights():
    claim, job = MANIFEST
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/work", "/tmp"}
    name = volumes["results"]["persistentVolumeClaim"]["claimName"]
    assert name == claim["metadata"]["name"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["restartPolicy"] == "Never"
    assert container["resources"]["requests"] == container["resources"]["limits"]


@pytest.mark.parametrize("place", ["containers", "volumes"])
def test_what_the_api_does_not_know_is_refused(place):
    content = json.loads(json.dumps(MANIFEST[1]))
    content["spec"]["template"]["spec"][place][0]["nmae"] = "a"
    with pytest.raises(AssertionError, match=rf"{place}\[0\]: unknown field nmae"):
        require_known(content, "V1Job")
