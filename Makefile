# make        set up .venv, run the default pipeline, print the table
# make test   run all tests
# make transcribe FILES="a.wav b.mp3"   what is said in recordings of any length (docs/transcribe.md)
#             OPTIONS="--format srt": as the document has them
# make bench  how fast is it, against the reference, the guide and this machine's limit?
#             ARCHIVE=PATH: AN4 from a file; BENCH="--rounds 5": options of benchmarks/bench.py
# make bench-growth   time and memory for ten and a hundred times as many utterances (ENGINE=NAME)
# make faults N=20   every fault at every point of every stage, half an hour; as root also full and
#             read-only disks. N: so many whole runs killed, and as many power cuts, 1 min each
# make fuzz N=100000  so many damaged files for each reader (FUZZ="--help": what else)
# make clean  remove results, .venv and .aarch64
# make test-ascend   on a machine with an Ascend NPU: does it compute there what it should?
#                    (BACKEND=acl_om: with offline models)
# make test-aarch64  does an emulated Arm CPU compute what this one does? 1 GB; Debian, with
#             qemu-user-static and mmdebstrap
# make test-slurm  the workflow on a Slurm of this one machine, as root; Debian, with slurm-wlm

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet

.PHONY: all test faults fuzz test-ascend test-aarch64 test-slurm transcribe bench bench-growth \
	bench-inputs clean

all: $(VENV)/.installed
	$(BIN)/snakemake
	@cat results/table.md
	@echo
	@echo "The report is $(CURDIR)/results/report.html, with the table beside it as table.tsv and table.md."

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 4 --dist loadgroup --no-loadscope-reorder --max-worker-restart 0

faults: $(VENV)/.installed
	FAULTS=1 $(BIN)/python -m pytest -v tests/faults

fuzz: $(VENV)/.installed
	$(BIN)/python tests/fuzz/driver.py --cases $(or $(N),300) $(FUZZ)

# The engines' own Python is found by profiles/ascend/python (docs/hardware.md).
test-ascend: $(VENV)/.installed
	TEST_ASCEND=$(or $(BACKEND),torch_aie) $(BIN)/python -m pytest -v tests/engines/test_on_ascend.py || \
		{ echo "Please send what profiles/ascend/REPORT.md asks for." >&2; exit 1; }

test-aarch64: $(VENV)/.installed
	TEST_AARCH64=1 $(BIN)/python -m pytest -v tests/engines/test_on_aarch64.py

test-slurm: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -r envs/slurm.txt
	TEST_SLURM=1 $(BIN)/python -m pytest -v tests/slurm/test_on_slurm.py

transcribe: $(VENV)/.installed
	@PYTHONPATH=workflow $(BIN)/python -m deepspeech2.transcribe $(OPTIONS) $(FILES)

bench: bench-inputs
	$(BIN)/python benchmarks/bench.py $(BENCH)

export N
ENGINE ?= native-int8
bench-growth: bench-inputs
	$(BIN)/python benchmarks/bench.py --models embedded --growth $(ENGINE) $(BENCH)

bench-inputs: $(VENV)/.installed
	$(BIN)/snakemake --configfile config/bench.yaml \
		$(if $(ARCHIVE),--config archive=$(ARCHIVE)) -- bench

# Where the lock file holds (envs/lock.txt says where), packages are checked by their hashes; elsewhere
# by their versions alone. torch stands apart: its wheel differs by index. librosa compiles some of its
# functions when it is first used, matplotlib looks for fonts: that takes a quarter of a minute and
# belongs to the installation, not to the first run.
LOCK_HOLDS := import platform as p, sys; sys.exit(not (p.libc_ver()[0] == "glibc" and \
    p.machine() in ("x86_64", "aarch64") and (3, 11) <= sys.version_info < (3, 14)))
$(VENV)/.installed: envs/requirements.txt envs/constraints.txt envs/lock.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	if $(PYTHON) -c '$(LOCK_HOLDS)'; then \
		grep -A1 '^setuptools==' envs/lock.txt | $(PIP) --require-hashes -r /dev/stdin && \
		$(PIP) --require-hashes --no-build-isolation -r envs/lock.txt && \
		$(PIP) $$(grep '^torch==' envs/requirements.txt); \
	else $(PIP) -r envs/requirements.txt -c envs/constraints.txt; fi
	$(BIN)/python -c 'import librosa, matplotlib.font_manager; librosa.stft'
	touch $@

clean:
	rm -rf $(VENV) .snakemake .aarch64
	find results -mindepth 1 ! -name README.md -delete
