# `make` alone lists the targets. Everything runs in .venv, which the targets make as they need it.
VENV   ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.spo-cpu
METHOD ?= tree
PYTEST ?= $(PY) -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint format smoke-gsm8k bench-tree-rollout clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml scripts/setup_cpu.sh scripts/constraints_cpu.txt
	PYTHON="$(PYTHON)" VENV="$(VENV)" bash scripts/setup_cpu.sh
	@touch $@

setup: $(STAMP)  ## make .venv with everything that runs on a machine without a GPU

demo: $(STAMP)  ## watch SPO learn on the CPU: ten minutes; METHOD=tree|chain|vineppo|equal-parts|grpo|grpo-mask|rloo|reinforce-pp|ppo
	$(PY) -m examples.demo --method $(METHOD)

test: $(STAMP)  ## all tests but the slow ones, under 15 minutes on two cores
	$(PYTEST) -m "not slow"

test-slow: $(STAMP)  ## every test
	$(PYTEST)

lint: $(STAMP)  ## ruff: format and lint
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

format: $(STAMP)  ## let ruff format and fix
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

smoke-gsm8k: $(STAMP)  ## two SPO-tree steps on real questions: GSM8K=<jsonl or parquet> MODEL=<folder>
	@test -n "$(GSM8K)" -a -n "$(MODEL)" || { echo "usage: make smoke-gsm8k GSM8K=<jsonl or parquet> MODEL=<model folder>" >&2; exit 2; }
	$(PY) -m examples.smoke_gsm8k --source "$(GSM8K)" --model "$(MODEL)"

bench-tree-rollout: $(STAMP)  ## tokens a second of our rollout against vLLM's own engine: MODEL=<folder>
	@test -n "$(MODEL)" || { echo "usage: make bench-tree-rollout MODEL=<model folder>" >&2; exit 2; }
	$(PY) -m benchmarks.tree_rollout --model "$(MODEL)"

clean:  ## remove .venv and outputs
	rm -rf $(VENV) outputs build *.egg-info
