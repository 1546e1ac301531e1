# One command for each habit. `make setup` is a part of all others; it does nothing when nothing has changed.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
PYTEST := $(BIN)/python -m pytest -rs

.PHONY: setup demo test spark35 sim check format bench lock settings clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml scripts/setup.sh
	@scripts/setup.sh $(VENV) $(SPARK)
	@touch $(STAMP)

demo: setup
	@$(BIN)/python -m jobserver.cli.main demo

# Two processes share the files, fast layers first: most of the time of a real failover is waiting.
TESTS ?= $(wildcard tests/unit tests/contract tests/sim tests/integration)
PROCESSES ?= 2
test: setup
	$(PYTEST) --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder $(TESTS)

# What touches Spark, with Spark 3.5 in an environment of its own. Java 17 is needed.
SPARK35 := 3.5.9
ON_SPARK := driver driver_rehearsals.py executors_elsewhere.py job_kinds main_job.py failover object_strategies.py hdfs_cluster.py
spark35:
	@$(MAKE) --no-print-directory test VENV=.venv-spark35 SPARK=$(SPARK35) \
	  TESTS="$(ON_SPARK:%=tests/integration/test_%)"

# The whole cluster on fakes in virtual time. One seed with its story: python -m tests.sim --story 7
SEEDS ?= 500
FIRST ?= 1
sim: setup
	$(BIN)/python -m tests.sim --first $(FIRST) --seeds $(SEEDS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python -m benchmarks --markdown benchmarks/RESULTS.md $(BENCH)

# The newest versions that pyproject.toml allows, for every Python from 3.11 on.
lock: setup
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras --upgrade \
	  --no-header --no-emit-index-url --quiet --output-file requirements.lock

# config/ is made from jobserver/settings/model.py.
settings: setup
	$(BIN)/python -m jobserver.settings.document config

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
