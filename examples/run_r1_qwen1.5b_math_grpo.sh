#!/usr/bin/env bash
# GRPO, the paper's baseline: DeepSeek-R1-Distill-Qwen-1.5B on MATH.
# Every argument is passed on to verl (Hydra), such as trainer.total_training_steps=10. What it will do and cost
# is printed before it starts; on its own: python -m recipe.spo.plan experiments=r1_math_grpo
set -euo pipefail

EXPERIMENT=${EXPERIMENT:-r1_math_grpo}                         # recipe/spo/config/experiments/NAME.yaml
MODEL=${MODEL:-deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B}      # folder, or hub id that has been fetched
DATA=${DATA:-data/math_r1}                                     # folder with train.parquet and validation.parquet
OUT=${OUT:-outputs/$EXPERIMENT}                                # checkpoints and metrics.jsonl; a run goes on from what is there
GPUS=${GPUS:-1}                                                # a machine
NODES=${NODES:-1}                                              # machines, joined by `ray start`
PYTHON=${PYTHON:-python}

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
export VERL_FILE_LOGGER_PATH=${VERL_FILE_LOGGER_PATH:-$OUT/metrics.jsonl}

# On a machine without a GPU: overlay=tiny_cpu, the same method on a small scale.
OVERLAY=$("$PYTHON" -m examples.ready --model "$MODEL" --data "$DATA" \
    --make-data "$PYTHON -m data_prep.math --template r1 --out $DATA")
mkdir -p "$OUT"

exec "$PYTHON" -m recipe.spo.main_spo \
    experiments="$EXPERIMENT" ${OVERLAY:+"$OVERLAY"} \
    data.train_files="$DATA/train.parquet" \
    data.val_files="$DATA/validation.parquet" \
    actor_rollout_ref.model.path="$MODEL" \
    trainer.n_gpus_per_node="$GPUS" \
    trainer.nnodes="$NODES" \
    trainer.default_local_dir="$OUT/checkpoints" \
    trainer.logger='[console,file]' \
    "$@"
