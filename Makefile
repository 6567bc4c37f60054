# make        set up .venv, run the default pipeline, print the table
# make test   run all tests
# make bench  how fast is it, against the reference, the guide and this machine's limit?
#             ARCHIVE=PATH: AN4 from a file; BENCH="--rounds 5": options of benchmarks/bench.py
# make bench-growth   time and memory for ten and a hundred times as many utterances (ENGINE=NAME)
# make clean  remove results and .venv
# make test-ascend   on a machine with an Ascend NPU: does it compute there what it should?

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: all test test-ascend bench bench-growth bench-inputs clean

all: $(VENV)/.installed
	$(BIN)/snakemake --quiet rules
	@cat results/table.md
	@echo
	@echo "The report is $(CURDIR)/results/report.html, with the table beside it as table.tsv, .md and .html."

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder

# The engines' own Python is found by profiles/ascend/python (README, section Ascend).
test-ascend: $(VENV)/.installed
	TEST_ASCEND=1 $(BIN)/python -m pytest -v tests/test_on_ascend.py || \
		{ echo "Please send what profiles/ascend/REPORT.md asks for." >&2; exit 1; }

bench: bench-inputs
	$(BIN)/python benchmarks/bench.py $(BENCH)

ENGINE ?= native-int8
bench-growth: bench-inputs
	$(BIN)/python benchmarks/bench.py --models embedded --growth $(ENGINE) $(BENCH)

bench-inputs: $(VENV)/.installed
	$(BIN)/snakemake --quiet rules --configfile config/bench.yaml \
		$(if $(ARCHIVE),--config archive=$(ARCHIVE)) -- bench

# librosa compiles some of its functions when it is first used, matplotlib looks for fonts: that
# takes a quarter of a minute and belongs to the installation, not to the first run.
$(VENV)/.installed: envs/requirements.txt envs/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r envs/requirements.txt -c envs/constraints.txt
	$(BIN)/python -c 'import librosa, matplotlib.font_manager; librosa.stft'
	touch $@

clean:
	rm -rf $(VENV) .snakemake
	find results -mindepth 1 ! -name README.md -delete
