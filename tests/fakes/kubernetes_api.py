"""A stand-in for Kubernetes' API: what pods.py asks of it, refused wherever the real one would.

It holds every Job against the API's models, and runs its command as a process: in the place of a
volume, with the pod's environment alone.
"""

import json
import os
import re
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import kubernetes

TOKEN = "let me in"
NAMESPACE = "speech"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
CPU = re.compile(r"\d+m?|\d+\.\d+")
MEMORY = re.compile(r"\d+([kMGT]|[KMGT]i)?")


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
            assert given == known and type(given) is type(known), where

    compare(content, read, model)


def require_pod(pod):
    """Refuse a pod that could not start."""
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    assert len(volumes) == len(pod.get("volumes", []))
    for container in pod["containers"]:
        assert NAME.fullmatch(container["name"]) and container["image"]
        assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes
        asked, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert CPU.fullmatch(asked["cpu"]) and MEMORY.fullmatch(asked["memory"])
        for name in set(asked) - {"cpu", "memory"}:  # devices: whole numbers, not overcommitted
            assert re.fullmatch(r"[a-z.]+/[\w.-]+", name) and asked[name].isdecimal()
            assert limits[name] == asked[name]


class Cluster:
    """Jobs by name, as asked for and as processes. Codes in `refuse` are answered first."""

    def __init__(self, pod, path):
        self.pod, self.path = pod, path
        self.asked, self.processes, self.refuse, self.to_kill = {}, {}, [], set()

    def create(self, job):
        require_known(job, "V1Job")
        prefix, pod = job["metadata"]["generateName"], job["spec"]["template"]["spec"]
        require_pod(pod)
        assert pod["restartPolicy"] == "Never"  # what a Job may have of its pods
        [container] = pod["containers"]
        name = f"{prefix}{len(self.asked):05}"
        assert NAME.fullmatch(name)
        place = Path(container["workingDir"])
        mounts = [Path(mount["mountPath"]) for mount in container["volumeMounts"]]
        assert any(place.is_relative_to(mount) for mount in mounts), "not on a volume"
        given = {v["name"]: v["value"] for v in container.get("env", []) if "value" in v}
        self.asked[name] = job
        killed = {rule for rule in self.to_kill if prefix == f"deepspeech2-{rule}-"}
        self.to_kill -= killed
        self.processes[name] = subprocess.Popen(
            ["sh", "-c", "kill -9 $$"] if killed else container["command"],
            cwd=place,
            env={"PATH": self.path, "HOME": os.environ["HOME"], **given},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return name

    def status(self, name):
        ended = self.processes[name].poll()
        if ended is None:
            return {"active": 1}
        kind = "Failed" if ended else "Complete"
        return {"conditions": [{"type": kind, "status": "True"}]}

    def remove(self, name):
        process = self.processes.pop(name)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def handler_of(cluster):
    jobs = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *words):
            pass

        def answer(self, code, content):
            data = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def refused(self):
            code = cluster.refuse.pop(0) if cluster.refuse else None
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                code = 401
            if code:
                self.answer(code, {"kind": "Status", "code": code, "message": f"no\n{code}"})
            return code

        def do_GET(self):
            if self.refused():
                return
            if self.path == f"/api/v1/namespaces/{NAMESPACE}/pods/deepspeech2-abcde":
                self.answer(200, cluster.pod)
                return
            name = self.path.removeprefix(f"{jobs}/").removesuffix("/status")
            if f"{jobs}/{name}/status" == self.path and name in cluster.processes:
                job = {**cluster.asked[name], "status": cluster.status(name)}
                self.answer(200, job)
                return
            self.answer(404, {"kind": "Status", "code": 404})

        def do_POST(self):
            if self.refused():
                return
            job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                assert self.path == jobs
                name = cluster.create(job)
            except (AssertionError, KeyError, ValueError) as error:
                self.answer(422, {"kind": "Status", "code": 422, "message": repr(error)})
                return
            self.answer(201, {**job, "metadata": {**job["metadata"], "name": name}})

        def do_DELETE(self):
            if self.refused():
                return
            name = self.path.partition("?")[0].removeprefix(f"{jobs}/")
            if name in cluster.processes:
                cluster.remove(name)
                self.answer(200, {"kind": "Status", "status": "Success"})
            else:
                self.answer(404, {"kind": "Status", "code": 404})

    return Handler


def serve(cluster):
    """A server of a cluster's API, in the background."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(cluster))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
