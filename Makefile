# `make demo` and `make test` need only Python 3.11 or newer and make; everything else goes into $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
export BENCH_DATA ?= data
# real thermal frames where they are at hand, rendered ones elsewhere
DEMO_TARGET := $(if $(wildcard $(BENCH_DATA)/hit-uav),hit-uav,scenes)
DEMO_RUN := imagenet x fpn-efficientnet-lite0 r0

.PHONY: demo test benchmark stress gpu published check format clean

demo: $(READY)
	@test -d $(BENCH_DATA)/$(DEMO_TARGET) || $(BIN)/bench data make scenes --n 90 --size 120x160
	$(BIN)/bench run --matrix demo --target $(DEMO_TARGET) --keep-weights
	$(BIN)/bench table --columns cost
	@echo
	@echo "Next: $(BIN)/bench predict \"$(DEMO_RUN)\" $(BENCH_DATA)/$(DEMO_TARGET)/unlabelled --out predictions --overlay"
	@echo "          what a network of the board sees in a folder of thermal images: these or yours"
	@echo "      $(BIN)/bench report --out site"
	@echo "          the board as web pages, for any web host or for a browser without one"

test: check
	$(BIN)/pytest -n auto --dist worksteal

TEXTS := README.md bench/README.md results/RESULTS.md results/CLAIMS.md
COG := $(BIN)/cog -p "from bench.cli.published import show; from bench.cli.reference import reference"

# the measurements in README.md, RESULTS.md and CLAIMS.md, and the reference of the commands in bench/README.md
published: $(READY)
	$(COG) -r $(TEXTS)

# what takes long and of which `make test` has a smaller case (marked `stress` in tests/): runs killed at random moments, 30 Ctrl-Cs,
# runs under odd TMPDIRs, SAM's ViT-B at its full size, SegFormer-B2 to B5, a thousand damaged caches; then more files spoiled at
# random, and runs and a Slurm that are disturbed 20 times
stress: $(READY)
	$(BIN)/pytest -n auto --dist worksteal -m stress
	BENCH_FUZZ=200 $(BIN)/pytest -n auto tests/test_fuzz.py
	$(BIN)/python tests/stress.py

# PySODMetrics, the reference for the weighted F-measure, wants an older numpy: an environment of its own
ORACLE := $(VENV)-oracle
benchmark: $(READY) $(ORACLE)/.installed
	$(BIN)/python tests/benchmarks --oracle $(ORACLE)/bin/python $(if $(wildcard $(BENCH_DATA)/hit-uav),--peer)

$(ORACLE)/.installed: constraints.txt
	$(PYTHON) -m venv $(ORACLE)
	$(ORACLE)/bin/python -m pip install --quiet pysodmetrics==1.6.2 $$(grep ^numba= constraints.txt)
	@touch $@

# what needs a CUDA GPU: with $(VENV) where it is installed, else with $(PYTHON), PyTorch, timm and the wheels of tests/gpu/wheels.py;
# DEVICE=cpu SMALL=1 tries the same code without one
DEVICE ?= cuda
GPU_RESULTS ?= gpu-results/$(DEVICE)$(if $(SMALL),-small)
gpu:
	$(if $(wildcard $(READY)),$(BIN)/python,$(PYTHON)) tests/gpu/steps.py --out $(GPU_RESULTS) --device $(DEVICE) $(if $(SMALL),--small)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini tests

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(ORACLE) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 1; }
	@echo "installing into $(VENV), once: some minutes and about 6 GB"
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" $(VENV) && \
		uv pip install --quiet --python $(BIN)/python --constraints constraints.txt --editable '.[dev]'; \
	else \
		$(PYTHON) -m venv $(VENV) && \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'; \
	fi
	@touch $(READY)
