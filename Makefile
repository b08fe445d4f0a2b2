# Two commands matter: `make run` and `make test`. Both set up what they need.
# uv is used where it is installed, venv + pip where it is not.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
SOURCES := pyproject.toml hatch_build.py dashboards/package-lock.json

# Where llm-traces/ lies; without it the loads are synthetic.
EVALUATION_DATA ?= ../shared/data

PALS_GRID_DATA_DIR ?= $(CURDIR)/.pals-grid
export PALS_GRID_DATA_DIR

ifdef UV
make_venv = uv venv --quiet --allow-existing --python "$(PYTHON)" $(1)
install = VIRTUAL_ENV="$(CURDIR)/$(1)" uv pip install --quiet
else
make_venv = "$(PYTHON)" -m venv $(1)
install = $(1)/bin/pip install --quiet --disable-pip-version-check
endif

.PHONY: run test check format lock test-node test-browser test-gpu test-deploy test-hostile \
    test-grants test-postgres test-vllm bench bench-cluster bench-nodes bench-grants \
    evaluate clean

run: $(VENV)/.run ## set up and start the service with a demo site on http://127.0.0.1:8080
	@exec $(BIN)/pals-grid up

test: $(VENV)/.dev ## set up and pass the tests
	$(BIN)/pytest -m "not browser and not gpu and not deploy and not vllm" -n auto --maxprocesses 4 \
	    $(PYTEST_ARGS)

check: $(VENV)/.dev ## lint, format, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test-node: .venv-node/.node ## the node's tests in an environment with the node's packages alone
	.venv-node/bin/python -m pytest -p no:cacheprovider tests/unit/core tests/unit/wire \
	    tests/unit/powermodel tests/unit/sim tests/unit/node tests/contract/test_devices.py

test-browser: $(VENV)/.dev ## the console in Debian's chromium
	$(BIN)/pytest -m browser tests/browser

test-deploy: $(VENV)/.dev ## units and manifest for real nodes, and kill -9 in every order
	$(BIN)/pytest -m deploy tests/deploy

test-gpu: $(VENV)/.dev ## a real NVIDIA GPU's telemetry under a load of its own; sets nothing
	$(BIN)/pytest -m gpu -s tests/gpu

test-hostile: $(VENV)/.dev ## 10,000 answers of a provider that does everything wrong, with figures
	PALS_GRID_HOSTILE_ANSWERS=10000 $(BIN)/pytest -s --show-capture=no tests/integration/test_hostile_provider.py

test-grants: $(VENV)/.dev ## 1,000 random sites under random faults, never above their budgets: 20 minutes
	PALS_GRID_GRANT_RUNS=1000 $(BIN)/pytest tests/unit/evaluate/test_grants_world.py

test-postgres: $(VENV)/.dev ## the store's and the service's tests on a server of your own
	@test -n "$$PALS_GRID_TEST_DATABASE_URL" || { echo "set PALS_GRID_TEST_DATABASE_URL" >&2; exit 2; }
	$(BIN)/pytest -n auto --maxprocesses 4 tests/unit/store tests/unit/service \
	    tests/integration/test_fixture_feeds.py tests/integration/test_hostile_provider.py \
	    tests/integration/test_replicas.py tests/integration/test_service_notifications.py \
	    tests/integration/test_up.py

test-vllm: .venv-vllm/.vllm ## real vLLM on the CPU, and the schedulers of its versions
	.venv-vllm/bin/python -m pytest -p no:cacheprovider -m vllm -rP tests/vllm

bench: $(VENV)/.dev ## CPU cost of a tick, of the plant, of a plan: figures, never a pass or fail
	$(BIN)/python -m pals_grid.evaluate.bench

bench-cluster: $(VENV)/.dev ## three replicas plan 300 sites of 33 nodes, one is killed: 20 minutes
	$(BIN)/python -m pals_grid.evaluate.bench_cluster $(BENCH_ARGS)

bench-nodes: $(VENV)/.dev ## what one process takes of statuses, telemetry, schedules: 3 minutes
	$(BIN)/python -m pals_grid.evaluate.bench_nodes $(BENCH_ARGS)

bench-grants: $(VENV)/.dev ## 200 nodes for six hours under lost, late and doubled messages: minutes
	$(BIN)/python -m pals_grid.evaluate.bench_grants

evaluate: $(VENV)/.dev ## every scenario on the simulated plant: docs/evaluation.md and its pictures
	$(BIN)/pals-grid evaluate --markdown docs/evaluation.md \
	    $(if $(wildcard $(EVALUATION_DATA)),--data $(EVALUATION_DATA))

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## renew the lock files (needs uv)
	requirements/lock.sh

clean:
	rm -rf .venv .venv-node .venv-vllm build dist .mypy_cache .ruff_cache .pytest_cache

$(VENV)/.run: requirements/run.txt $(SOURCES)
	$(call setup,$(VENV),requirements/run.txt)
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(SOURCES)
	$(call setup,$(VENV),requirements/dev.txt)
	@touch $@ $(VENV)/.run

.venv-node/.node: requirements/node-test.txt $(SOURCES)
	$(call setup,.venv-node,requirements/node-test.txt)
	@touch $@

.venv-vllm/.vllm: requirements/setup-vllm.sh requirements/vllm.txt requirements/vllm-versions.txt $(SOURCES)
	@echo "setting up .venv-vllm from requirements/vllm.txt (3 GB)"
	@PYTHON="$(PYTHON)" requirements/setup-vllm.sh .venv-vllm
	@touch $@

# $(1) the environment, $(2) its lock file
define setup
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
    { echo "PALS Grid needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Set PYTHON=..." >&2; exit 2; }
@echo "setting up $(1) from $(2)"
@$(call make_venv,$(1))
@$(call install,$(1)) --require-hashes -r $(2)
@$(call install,$(1)) --no-build-isolation --no-deps -e .
endef
