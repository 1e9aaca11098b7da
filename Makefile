# The verbs, the same for people and CI. `make images PROFILE=cluster-gpu`, `make run DATA=journey`, `make run DATA=expedia INPUT=path MODEL=hhsft SET="train.epochs=2"`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The lock is complete, so nothing is left to resolve, except for torch: which CUDA packages it needs depends on its wheel.
# The pip that Python brings takes minutes to read the index. PySpark is a source archive of 450 MB: its wheel is built beside the rest.
# Byte code is left to the first import: writing that of all files took most of the time, and most are never imported.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
# A file's fixtures are made once; files begin in the order of tests/conftest.py, not in that of how many tests they hold.
IN_TWO := -n 2 --dist loadfile --no-loadscope-reorder
DATA ?= simulation
INPUT ?=
MODEL ?=
SET ?=
PROFILE ?= laptop

# Tests start many processes: where containers forbid it, each would compile the source anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup run test test-slow test-all bench check images manifests clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 is needed, found " + sys.version.split()[0] + ": set PYTHON=/path/to/python3.11") if sys.version_info[:2] != (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(PIP) -c requirements.lock --upgrade pip
	$(PIP) -c requirements.lock torch
	$(PIP) --no-deps -c requirements.lock pyspark & spark=$$!; \
	grep -v '^pyspark==' requirements.lock | $(PIP) --no-deps -r /dev/stdin; rest=$$?; wait $$spark && exit $$rest
	$(PIP) --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check
	touch $(READY)

# Exit code 3 is a clean outcome: the candidate was rejected and the champion stays.
run: setup
	$(BIN)/uniscale run --data $(DATA) $(if $(INPUT),--input $(INPUT)) $(if $(MODEL),--model $(MODEL)) $(foreach pair,$(SET),--set $(pair)) \
	|| { code=$$?; [ $$code -eq 3 ] || exit $$code; }

test: setup
	$(BIN)/python -m pytest $(IN_TWO) -m "not slow"

# Clusters of Spark, killed workers, a whole run killed and resumed: what takes minutes.
test-slow: setup
	$(BIN)/python -m pytest $(IN_TWO) -m slow

# Both at once, as CI runs them: what they share is made once.
test-all: setup
	$(BIN)/python -m pytest $(IN_TWO)

# What docs/benchmarks.md records; each is also run on its own, with larger sizes by its flags (--help).
bench: setup
	$(BIN)/python -m benchmarks.es3
	$(BIN)/python -m benchmarks.loader
	$(BIN)/python -m benchmarks.storage
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.metrics
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.listwise
	$(BIN)/python -m benchmarks.request_sharing --repeats 3
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.experiments
	$(BIN)/python -m benchmarks.faults
	$(BIN)/uniscale compare --table uniscale-1 --seeds 3
	$(BIN)/uniscale compare --table uniscale-4 --seeds 3

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

# Prints the build commands, and runs them where there is docker or podman.
images: setup
	$(BIN)/uniscale images --profile $(PROFILE)

# The alert rules as the object that Prometheus' operator reads.
manifests:
	{ printf '%s\n' '# Written by `make manifests`.' 'apiVersion: monitoring.coreos.com/v1' 'kind: PrometheusRule' 'metadata:' '  name: uniscale' '  labels: {app.kubernetes.io/part-of: uniscale}' 'spec:'; sed 's/^/  /' monitoring/alerts.yaml; } > manifests/base/alerts.yaml

clean:
	rm -rf runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
