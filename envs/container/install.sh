#!/bin/sh
# What Dockerfile and deepspeech2.def have in common: the environment as the README makes it, in
# /opt/deepspeech2, without what only the project's own checks need, and
# with what sends jobs to Kubernetes.
set -eu
cd /opt/deepspeech2
apt-get update
apt-get install -y --no-install-recommends make python3 python3-venv libgomp1 ca-certificates
make .venv/.installed
.venv/bin/python -m pip install --quiet -r envs/kubernetes.txt
.venv/bin/python -m pip uninstall --quiet --yes \
    playwright pytest pytest-xdist ruff snakefmt black vermin jiwer
find .venv -name tests -path '*/site-packages/*' -type d -prune -exec rm -rf {} +
chmod -R a+rX .
