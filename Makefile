# The project's commands. `make demo` and `make test` need nothing but CPython 3.11+ with pip.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# torch first, by itself: with it in place no other package asks for another build.
TORCH  := $(shell grep '^torch==' constraints.txt)

# A process for each core, a file of tests in one of them; their small products gain nothing by threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

PIP    := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.PHONY: setup demo test check interop mlflow vllm azurite format clean

# The demo needs less than the tests: no linters, no servers.
setup: $(VENV)/.installed

$(VENV)/.runs: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "slant needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): some minutes the first time, nothing afterwards."
	@$(PIP) pip setuptools wheel
	@$(PIP) $(TORCH)
	@$(PIP) --no-build-isolation -e '.[quickstart]'
	@touch $@

$(VENV)/.installed: $(VENV)/.runs
	@$(PIP) --no-build-isolation -e '.[quickstart,dev]'
	@touch $@

demo: $(VENV)/.runs
	$(BIN)/slant run examples/quickstart/slant.yaml
	$(BIN)/slant score examples/quickstart/work/bundle \
	  --narrative 'The new tram line in Zelengrad' \
	  --text 'Twelve minutes to the centre instead of forty, and the trams are clean. Best thing the city has done.' \
	  --text 'Трамвай опять стоит. Третий раз за неделю опоздала на работу.' \
	  --text '泽林格勒新电车线路将于下月公布票价。'

# The judge of our shards is a peer's own library, in an environment of its own.
interop: setup
	PYTHON=$(BIN)/python sh tests/interop/setup.sh .venv-interop
	SLANT_MDS_PYTHON=.venv-interop/bin/python $(BIN)/python -m pytest tests/interop

# The server does not install beside slant: it wants an older pyarrow.
mlflow: setup
	$(PYTHON) -m venv .venv-mlflow
	.venv-mlflow/bin/python -m pip install -qq --disable-pip-version-check 'mlflow==3.17.2'
	SLANT_MLFLOW_SERVER=.venv-mlflow/bin/mlflow $(BIN)/python -m pytest tests/server

# Likewise: it wants an older transformers.
vllm: setup
	PYTHON=$(PYTHON) sh benchmarks/peers/setup_vllm.sh .venv-vllm
	SLANT_VLLM=.venv-vllm/bin/vllm $(BIN)/python -m pytest tests/server/*_through_vllm.py

# Azure's own emulator is a program for Node.
azurite: setup
	npm install --silent --no-fund --no-audit --prefix .azurite azurite@3.35.0
	SLANT_AZURITE=.azurite/node_modules/.bin/azurite-blob $(BIN)/python -m pytest tests/server/test_publish_to_azure.py

test: setup
	$(PYTEST)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf examples/*/work .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
