#!/usr/bin/env bash
# SPO-tree on generated arithmetic with a policy of 0.8 M parameters, on two CPU cores.
# `make demo` prepares DATA and MODEL and runs this; every argument is passed on to verl (Hydra).
set -euo pipefail

DATA=${DATA:-outputs/demo/data}            # folder with train.parquet and validation.parquet
MODEL=${MODEL:-outputs/demo/policy}        # Hugging Face folder
OUT=${OUT:-outputs/demo}                   # metrics.jsonl and checkpoints go here
PYTHON=${PYTHON:-python}

QUESTIONS=${QUESTIONS:-24}                 # a step
BRANCH_FACTORS=${BRANCH_FACTORS:-[4,2,2,2]}
SEGMENT_LENGTH=${SEGMENT_LENGTH:-10}       # tokens, about a line; the last level runs to the end
OPTIMIZER_STEPS=${OPTIMIZER_STEPS:-2}      # a step
STEPS=${STEPS:-45}
LR=${LR:-1e-4}

export VERL_FILE_LOGGER_PATH=${VERL_FILE_LOGGER_PATH:-$OUT/metrics.jsonl}
mkdir -p "$OUT"

exec "$PYTHON" -m recipe.spo.main_spo \
    data.train_files="$DATA/train.parquet" \
    data.val_files="$DATA/validation.parquet" \
    data.train_batch_size="$QUESTIONS" \
    data.max_prompt_length=128 \
    data.max_response_length=96 \
    algorithm.spo.tree.branch_factors="$BRANCH_FACTORS" \
    algorithm.spo.tree.segment_length="$SEGMENT_LENGTH" \
    algorithm.spo.optimizer_steps="$OPTIMIZER_STEPS" \
    actor_rollout_ref.model.path="$MODEL" \
    actor_rollout_ref.rollout.temperature=1.0 \
    actor_rollout_ref.actor.use_kl_loss=False \
    actor_rollout_ref.actor.optim.lr="$LR" \
    actor_rollout_ref.actor.optim.lr_scheduler_type=cosine \
    trainer.experiment_name=tiny_arithmetic_spo_tree \
    trainer.default_local_dir="$OUT/checkpoints" \
    trainer.resume_mode=disable \
    trainer.total_training_steps="$STEPS" \
    trainer.test_freq=10 \
    trainer.logger='[console,file]' \
    "$@"
