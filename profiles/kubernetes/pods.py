#!/usr/bin/env python3
"""Jobs of the workflow as Kubernetes' Jobs, for the profile beside it (docs/containers.md).

Snakemake calls it: with `submit` and the script that it wrote of a job, whose first lines say what
the job needs; with `status` and the name of a Job; and with names of Jobs alone, to cancel them. A
job's pod is made as the one that Snakemake runs in: its image, volumes, environment and user.
"""

import json
import os
import re
import sys

import kubernetes
import urllib3

SECRETS = "/var/run/secrets/"  # what Kubernetes mounts by itself
KEPT = ("imagePullSecrets", "nodeSelector", "securityContext", "tolerations")
KEPT_OF_CONTAINER = ("env", "image", "imagePullPolicy", "securityContext")
DAY = 86_400  # seconds that a Job which has ended stays, for its log
LABEL = "deepspeech2"
# What the workflow asks for, as the cluster names it: set in the pod's `env` where it differs.
DEVICES = {
    "gpu": os.environ.get("POD_GPU", "nvidia.com/gpu"),
    "npu": os.environ.get("POD_NPU", "huawei.com/Ascend310P"),
}


def needs_of(script):
    """What the first lines of a job's script say: its rule or group, threads and resources."""
    with open(script, encoding="utf-8") as file:
        for line in file:
            if line.startswith("# properties = "):
                return json.loads(line.partition("=")[2])
    raise ValueError(f"{script}: it does not say what the job needs")


def devices_of(resources):
    """Devices that a job asks for, under the cluster's names."""
    kind, _, count = str(resources.get("gres") or "").partition(":")
    counts = {"gpu": resources.get("gpu"), kind: count or 1}
    return {name: str(counts[key]) for key, name in DEVICES.items() if counts.get(key)}


def job_of(script, needs, own):
    """The Job that runs a script in a pod as `own`, an API object in JSON's types."""
    resources, spec = needs["resources"], own["spec"]
    container = spec["containers"][0]
    mounts = [
        mount
        for mount in container.get("volumeMounts", [])
        if not mount["mountPath"].startswith(SECRETS)
    ]
    used = {mount["name"] for mount in mounts}
    asked = {
        "cpu": str(needs.get("threads", 1)),
        "memory": f"{resources['mem_mb']}M",
        **devices_of(resources),
    }
    pod = {
        **{key: spec[key] for key in KEPT if key in spec},
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [
            {
                **{key: container[key] for key in KEPT_OF_CONTAINER if key in container},
                "name": "job",
                "command": ["sh", script],
                "workingDir": os.getcwd(),
                "resources": {"requests": asked, "limits": asked},
                "volumeMounts": mounts,
            }
        ],
        "volumes": [volume for volume in spec.get("volumes", []) if volume["name"] in used],
    }
    labels = {"app": LABEL}
    if resources.get("alone"):
        # Kubernetes keeps to it both ways: no job comes to a node that one of these is on, either.
        apart = {"labelSelector": {"matchLabels": labels}, "topologyKey": "kubernetes.io/hostname"}
        affinity = {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}
        pod["affinity"] = {"podAntiAffinity": affinity}
    name = re.sub("[^a-z0-9]+", "-", str(needs.get("rule") or needs.get("groupid")).lower())
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": f"{LABEL}-{name[:30].strip('-')}-", "labels": labels},
        "spec": {
            "backoffLimit": 0,  # whether it runs again Snakemake decides
            "activeDeadlineSeconds": 60 * int(resources["runtime"]),
            "ttlSecondsAfterFinished": DAY,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def submit(script, namespace):
    """Create a job's Job; returns its name."""
    client = kubernetes.client.ApiClient()
    own = kubernetes.client.CoreV1Api(client).read_namespaced_pod(os.environ["POD_NAME"], namespace)
    job = job_of(script, needs_of(script), client.sanitize_for_serialization(own))
    made = kubernetes.client.BatchV1Api(client).create_namespaced_job(namespace, job)
    return made.metadata.name


def status(name, namespace):
    """What became of a Job, in the words that Snakemake knows."""
    try:
        job = kubernetes.client.BatchV1Api().read_namespaced_job_status(name, namespace)
    except kubernetes.client.ApiException as error:
        if error.status == 404:
            return "failed"  # removed
        if error.status < 500:
            raise
        print(f"{name}: the cluster's API answers {error.status}; asked again", file=sys.stderr)
        return "running"
    except urllib3.exceptions.HTTPError as error:
        print(f"{name}: the cluster's API is not there; asked again: {error}", file=sys.stderr)
        return "running"
    ended = {c.type for c in job.status.conditions or [] if c.status == "True"}
    return "success" if "Complete" in ended else "failed" if "Failed" in ended else "running"


def cancel(names, namespace):
    """Remove Jobs and their pods."""
    for name in names:
        try:
            kubernetes.client.BatchV1Api().delete_namespaced_job(
                name, namespace, propagation_policy="Background"
            )
        except kubernetes.client.ApiException as error:
            if error.status != 404:
                raise


def main(words):
    """Do what the words say; returns what is printed."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        kubernetes.config.load_incluster_config()
    else:
        kubernetes.config.load_kube_config()
    namespace = os.environ.get("POD_NAMESPACE", "default")
    if words[:1] == ["submit"]:
        return submit(words[1], namespace)
    if words[:1] == ["status"]:
        return status(words[1], namespace)
    return cancel(words, namespace)


if __name__ == "__main__":
    try:
        said = main(sys.argv[1:])
    except (
        kubernetes.client.ApiException,
        kubernetes.config.ConfigException,
        urllib3.exceptions.HTTPError,
        ImportError,
        KeyError,
        OSError,
        ValueError,
    ) as error:
        reason = getattr(error, "body", None) or f"{type(error).__name__}: {error}"
        sys.exit(f"error: {' '.join(str(reason).split())}")
    if said:
        print(said)
