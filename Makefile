# `make help` lists what there is. Every target sets up what it needs first; a second call starts at once.
# Works with GNU make 3.81 (macOS). Paths are relative, so the folder's own path may hold spaces.

SHELL := /bin/sh
VENV := .venv
PEERS := .venv-peers
PY := $(VENV)/bin/python
NBVAL := --nbval-lax --nbval-current-env --nbval-cell-timeout=850
# Test files side by side, twice as many as two cores: ranks wait for each other, browsers for kernels.
# Those of one file stay together, as a notebook's cells have to; in the order of their names, but for the longest, which come first, and what needs a quieter machine, which comes last.
SIDE_BY_SIDE := -n 4 --dist loadfile --no-loadscope-reorder
ROOT_FLAG := $(shell [ "$$(id -u)" = 0 ] && echo --allow-root)
ARGS :=

# Nothing is fetched from a model hub, and no tool reports home.
export HF_HUB_OFFLINE := 1
export FLWR_TELEMETRY_ENABLED := 0
export RAY_USAGE_STATS_ENABLED := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup lab test lint notebooks federation bench bench-peers bench-pfl clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/.prepared ## Make .venv, install the pinned packages, prepare models and data

lab: setup ## Open JupyterLab on the first notebook (ARGS=--no-browser prints the address)
	$(PY) -m jupyterlab $(ROOT_FLAG) --LabApp.news_url=None \
	  --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate \
	  --LabApp.default_url=/lab/tree/notebooks/00-start-here.ipynb $(ARGS)

test: setup lint ## Lint, then every test and every notebook, with branch coverage
	WORKBENCH_SIZE=ci $(PY) -m pytest $(NBVAL) $(SIDE_BY_SIDE) --cov --cov-report=term $(ARGS)

lint: $(VENV)/.packages ## Check style and format, notebooks too
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

notebooks: setup ## Run every notebook
	WORKBENCH_SIZE=ci $(PY) -m pytest $(NBVAL) $(ARGS) notebooks $(wildcard tests/test_notebooks.py)

federation: setup ## Fine-tune as a federation on this machine: SuperLink, SuperNodes, TLS (ARGS=--resume)
	$(PY) -m workbench.federated.deploy $(ARGS)

bench: setup ## Run the benchmarks one after another; they print ratios
	@for script in benchmarks/[a-z]*.py; do \
	  echo "== $$script"; $(PY) "$$script" $(ARGS) || exit 1; \
	done

bench-peers: setup $(PEERS)/.packages ## Attention against published libraries, in .venv-peers; prints ratios
	PYTHONPATH=benchmarks $(PEERS)/bin/python -W ignore -m peers $(ARGS)

bench-pfl: setup $(PEERS)/.packages ## A federation's overhead against pfl-research, in .venv-peers
	PYTHONPATH=benchmarks $(PEERS)/bin/python -W ignore -m peers.federation $(ARGS)

clean: ## Remove everything that make and the tests have made
	rm -rf $(VENV) $(PEERS) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +

# The steps of the set-up. Each leaves its stamp only when it has succeeded, so that a call after an interruption goes on from there.
$(VENV)/.python:
	@echo "[1/3] Making $(VENV)"
	@python=$$(sh tools/find_python.sh "$(PYTHON)") && \
	  "$$python" tools/unfinished.py $(VENV) && "$$python" -m venv $(VENV)
	@touch $@

$(VENV)/.packages: $(VENV)/.python requirements.lock pyproject.toml
	@echo "[2/3] Installing about 200 pinned packages (2.8 GB on disk; more where torch brings CUDA)"
	@$(PY) tools/unfinished.py $(VENV)
	$(PY) -m pip install --no-compile -c requirements.lock torch==2.13.0
	$(PY) -m pip install --no-compile --no-deps -r requirements.lock
	$(PY) -m pip install --no-deps --no-build-isolation -e .
	@echo "Compiling them, on all cores; pip would take one"
	@$(PY) -W ignore -m compileall -q -j 0 $(VENV)/lib > $(VENV)/compiled.log 2>&1 || true  # a few are templates
	@touch $@

$(VENV)/.prepared: $(VENV)/.packages
	@echo "[3/3] Preparing the embedded models and data"
	[ ! -f workbench/__main__.py ] || $(PY) -m workbench prepare
	@touch $@

# The published libraries stand apart: their environment sees .venv's packages, never the other way round.
$(PEERS)/.packages: $(VENV)/.packages benchmarks/peers/requirements.txt
	@$(PY) tools/unfinished.py $(PEERS)
	$(PY) -m venv $(PEERS)
	@$(PY) -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
	  > "$$($(PEERS)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/shared.pth"
	DS_BUILD_OPS=0 $(PEERS)/bin/python -m pip install --no-deps -r benchmarks/peers/requirements.txt
	@touch $@
