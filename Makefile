# `make` alone lists the targets. Everything runs in .venv, which the targets make as they need it.
VENV   ?= .venv
GPU_VENV ?= .venv-gpu
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.spo-cpu
METHOD ?= tree
PYTEST ?= $(PY) -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup setup-gpu demo test test-browser test-slow lint format smoke-gsm8k check-experiments view bench-dump-cost bench-tree-rollout bench-grading bench-shared-prefixes bench-values bench-learning eval-gsm8k eval-math500 eval-aime24 clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-22s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml scripts/setup_cpu.sh scripts/constraints_cpu.txt
	PYTHON="$(PYTHON)" VENV="$(VENV)" bash scripts/setup_cpu.sh
	@touch $@

setup: $(STAMP)  ## make .venv with everything that runs on a machine without a GPU

setup-gpu:  ## make .venv-gpu for a machine with NVIDIA GPUs (verl's own releases); then PY=.venv-gpu/bin/python
	@PYTHON="$(PYTHON)" GPU_VENV="$(GPU_VENV)" bash scripts/setup_gpu.sh

demo: $(STAMP)  ## watch SPO learn on the CPU: ten minutes; METHOD=tree|chain|vineppo|equal-parts|grpo|grpo-mask|rloo|reinforce-pp|ppo
	$(PY) -m examples.demo --method $(METHOD) $(if $(STEPS),--steps $(STEPS))

.PHONY: train-gsm8k train-math
# What trains or evaluates a model of yours never makes .venv: on a machine with GPUs it would be the wrong one. Give PY=
# there: `.venv-gpu/bin/python`, or `python` of an environment that has `pip install -e '.[gpu]'`.
train-gsm8k:  ## Rho-1.1B on GSM8K: METHOD=tree|chain [EXPERIMENT=] [MODEL=<folder or hub id>] [DATA=] [GPUS=1] [NODES=1] [OUT=] [ARGS=<overrides>]
	$(call train,gsm8k,tree=rho1b_gsm8k_spo_tree chain=rho1b_gsm8k_spo_chain)

train-math:  ## R1-Distill-Qwen-1.5B on MATH: METHOD=tree|grpo [EXPERIMENT=] [MODEL=] [DATA=] [GPUS=1] [NODES=1] [OUT=] [ARGS=<overrides>]
	$(call train,math,tree=r1_qwen1.5b_math_spo_tree grpo=r1_qwen1.5b_math_grpo)

need_python = @command -v "$(PY)" >/dev/null || { echo "there is no $(PY): run \`make setup\`, or on a machine with GPUs \`make setup-gpu\` and give PY=$(GPU_VENV)/bin/python" >&2; exit 2; }

# $(2) is a list of METHOD=SCRIPT; what is set on make's command line is in the script's environment.
script_of = $(patsubst $(METHOD)=%,%,$(filter $(METHOD)=%,$(1)))
define train
@test -n "$(call script_of,$(2))" || { echo "make train-$(1) has no METHOD=$(METHOD): one of $(foreach pair,$(2),$(firstword $(subst =, ,$(pair))))" >&2; exit 2; }
$(need_python)
@PYTHON="$(PY)" bash examples/run_$(call script_of,$(2)).sh $(ARGS)
endef

# For the slow tests of the viewer's page alone: no part of what a demo needs.
BROWSER := $(VENV)/.spo-browser
$(BROWSER): $(STAMP)
	$(PY) -m pip install -q --disable-pip-version-check -e '.[browser]' -c scripts/constraints_cpu.txt
	@touch $@

# A run of the whole stack takes both cores; all else goes in two processes, a file of tests to each at a time.
define unit_tests
$(PYTEST) -m "not slow and not e2e" -n 2 --dist loadfile
endef

test: $(STAMP)  ## all tests but the slow ones, under 15 minutes on two cores
	$(unit_tests)
	$(PYTEST) -m "not slow and e2e"

# A browser that does not start fails these two, so that the page's tests are not left out unseen.
test-browser: $(BROWSER)  ## the viewer's page in a headless browser, seconds once it is installed (670 MB more in .venv)
	SPO_REQUIRE_BROWSER=1 $(PYTEST) tests/integration/test_view_browser.py

test-slow: $(STAMP) $(BROWSER)  ## every test, those of test-browser among them
	$(unit_tests)
	SPO_REQUIRE_BROWSER=1 $(PYTEST) -m "slow or e2e"

lint: $(STAMP)  ## ruff: format and lint
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

format: $(STAMP)  ## let ruff format and fix
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

smoke-gsm8k: $(STAMP)  ## two SPO-tree steps on real questions: GSM8K=<jsonl or parquet> MODEL=<folder>
	@test -n "$(GSM8K)" -a -n "$(MODEL)" || { echo "usage: make smoke-gsm8k GSM8K=<jsonl or parquet> MODEL=<model folder>" >&2; exit 2; }
	$(PY) -m examples.smoke_gsm8k --source "$(GSM8K)" --model "$(MODEL)"

check-experiments: $(STAMP)  ## two steps of each published experiment, small, on the CPU: [EXPERIMENTS="rho_gsm8k_tree_666 ..."]
	$(PY) -m examples.check_experiments $(EXPERIMENTS)

view:  ## dumped trees as one HTML page: DUMP=<algorithm.spo.dump_dir> [ARGS="--step 11 --terminal"]
	$(need_python)
	@test -n "$(DUMP)" || { echo "usage: make view DUMP=<the folder that algorithm.spo.dump_dir named>" >&2; exit 2; }
	@$(PY) -m recipe.spo.view "$(DUMP)" $(ARGS)

bench-dump-cost: $(STAMP)  ## what dumping costs, as a share of a step: LOG=<metrics.jsonl of a run> MODEL=<folder>
	@test -n "$(LOG)" -a -n "$(MODEL)" || { echo "usage: make bench-dump-cost LOG=<metrics.jsonl of a run> MODEL=<model folder>" >&2; exit 2; }
	$(PY) -m benchmarks.dump_cost --log "$(LOG)" --model "$(MODEL)"

bench-tree-rollout: $(STAMP)  ## tokens a second of our rollout against vLLM's own engine: MODEL=<folder>
	@test -n "$(MODEL)" || { echo "usage: make bench-tree-rollout MODEL=<model folder>" >&2; exit 2; }
	$(PY) -m benchmarks.tree_rollout --model "$(MODEL)"

bench-grading: $(STAMP)  ## seconds to grade GSM8K and MATH, against math-verify alone: SOURCES="<gsm8k jsonl> <math jsonl>"
	@test -n "$(SOURCES)" || { echo 'usage: make bench-grading SOURCES="<file of GSM8K> <file of MATH>"' >&2; exit 2; }
	$(PY) -m benchmarks.grading --source $(SOURCES)

bench-shared-prefixes: $(STAMP)  ## update with shared prefixes against verl's rows: MODEL=<folder> [ARGS="--batches gsm8k"]
	@test -n "$(MODEL)" || { echo "usage: make bench-shared-prefixes MODEL=<model folder>" >&2; exit 2; }
	$(PY) -m benchmarks.shared_prefixes --model "$(MODEL)" $(ARGS)

# Any model and data in verl's schema; by default what `make demo` left behind.
bench-values: MODEL ?= outputs/demo/policy
bench-values: DATA ?= outputs/demo/data
bench-values: OUT ?= outputs/bench-values
bench-values:  ## how accurate each method's values and gradients are: [MODEL=] [DATA=] [OUT=] [EXTRA=<options>]
	$(need_python)
	@test -e "$(MODEL)" -a -e "$(DATA)" || { echo "$(MODEL) or $(DATA) does not exist: run \`make demo\`, or give MODEL=<model folder> DATA=<folder or parquet file>" >&2; exit 2; }
	$(PY) -m recipe.spo.bench_values "$(MODEL)" --data "$(DATA)" --out "$(OUT)" $(EXTRA)

bench-learning: OUT ?= outputs/bench-learning
bench-learning: $(STAMP)  ## learning curves of all methods at equal tokens; hours, the same command goes on: [OUT=] [ARGS="--report"]
	$(PY) -m benchmarks.learning --out "$(OUT)" $(ARGS)

# DATA is what data_prep writes; EXTRA is passed on, see `python -m recipe.spo.evaluate run --help`.
eval-gsm8k: DATA ?= data/gsm8k
eval-gsm8k: PRESET ?= gsm8k-paper
eval-math500: DATA ?= data/math500
eval-math500: PRESET ?= long-cot-4k
eval-aime24: DATA ?= data/aime24
eval-aime24: PRESET ?= long-cot-4k
eval-aime24: SAMPLES ?= $(if $(filter greedy,$(PRESET)),,16)

eval-gsm8k:  ## evaluate on GSM8K: MODEL=<folder, checkpoint or hub id> [DATA=] [PRESET=] [SAMPLES=] [EXTRA=]
	$(call evaluate,gsm8k)

eval-math500:  ## evaluate on MATH500: MODEL=... [PRESET=long-cot-2k|4k|32k]
	$(call evaluate,math500)

eval-aime24:  ## evaluate on AIME24, 16 samples: MODEL=... [PRESET=long-cot-2k|4k|32k|greedy]
	$(call evaluate,aime24)

define evaluate
$(need_python)
@test -n "$(MODEL)" || { echo "usage: make eval-$(1) MODEL=<model folder, verl checkpoint or hub id>" >&2; exit 2; }
@test -e "$(DATA)" || { echo "$(DATA) does not exist; make it with: $(PY) -m data_prep.$(1) --out $(DATA) (or DATA=<folder or parquet file>)" >&2; exit 2; }
$(PY) -m recipe.spo.evaluate run "$(MODEL)" --data "$(DATA)" --preset $(PRESET) $(if $(SAMPLES),--samples $(SAMPLES)) $(EXTRA)
endef

clean:  ## remove .venv, .venv-gpu and outputs
	rm -rf $(VENV) $(GPU_VENV) outputs build *.egg-info
