#!/usr/bin/env bash
# SPO-tree 6-6-6: Rho-1.1B on GSM8K (paper, section 5).
# Every argument is passed on to verl (Hydra), such as trainer.total_training_steps=10. What it will do and cost
# is printed before it starts; on its own: python -m recipe.spo.plan experiments=rho_gsm8k_tree_666
set -euo pipefail

EXPERIMENT=${EXPERIMENT:-rho_gsm8k_tree_666}                   # recipe/spo/config/experiments/NAME.yaml
MODEL=${MODEL:-realtreetune/rho-1b-sft-GSM8K}                  # folder, or hub id that has been fetched
DATA=${DATA:-data/gsm8k_rho}                                   # folder with train.parquet and validation.parquet
OUT=${OUT:-outputs/$EXPERIMENT}                                # checkpoints and metrics.jsonl; a run goes on from what is there
GPUS=${GPUS:-1}                                                # a machine
NODES=${NODES:-1}                                              # machines, joined by `ray start`
PYTHON=${PYTHON:-python}

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
export VERL_FILE_LOGGER_PATH=${VERL_FILE_LOGGER_PATH:-$OUT/metrics.jsonl}

# On a machine without a GPU: overlay=tiny_cpu, the same method on a small scale.
OVERLAY=$("$PYTHON" -m examples.ready --model "$MODEL" --data "$DATA" \
    --make-data "$PYTHON -m data_prep.gsm8k --template rho --out $DATA")
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
