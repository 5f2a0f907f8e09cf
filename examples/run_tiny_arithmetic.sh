#!/usr/bin/env bash
# Any method on generated arithmetic, with a policy of 0.8 M parameters, on two CPU cores.
# `make demo METHOD=...` prepares DATA and MODEL and runs this; every argument is passed on to verl (Hydra).
set -euo pipefail

METHOD=${METHOD:-tree}                     # tree chain vineppo equal-parts grpo grpo-mask rloo reinforce-pp ppo
DATA=${DATA:-outputs/demo/data}            # folder with train.parquet and validation.parquet
MODEL=${MODEL:-outputs/demo/policy}        # Hugging Face folder
OUT=${OUT:-outputs/demo}                   # metrics.jsonl and the trained policy (checkpoints/) go here
PYTHON=${PYTHON:-python}

QUESTIONS=${QUESTIONS:-24}                 # a step
OPTIMIZER_STEPS=${OPTIMIZER_STEPS:-2}      # a step
STEPS=${STEPS:-32}
LR=${LR:-1e-4}

# Sizes that generate 10 to 20 thousand tokens a step at the start.
case "$METHOD" in
    tree)                                  # wide at the root, where an error of a value weighs most
        SHAPE=(algorithm.spo.tree.branch_factors="${BRANCH_FACTORS:-[12,2]}"
               algorithm.spo.tree.segment_length="${SEGMENT_LENGTH:-16}") ;;
    chain)
        SHAPE=(algorithm.spo.chain.trajectories="${TRAJECTORIES:-4}"
               algorithm.spo.chain.continuations="${CONTINUATIONS:-3}"
               algorithm.spo.chain.cut_interval="${CUT_INTERVAL:-2}") ;;
    vineppo|equal-parts)
        SHAPE=(algorithm.spo.chain.trajectories="${TRAJECTORIES:-4}"
               algorithm.spo.chain.continuations="${CONTINUATIONS:-3}") ;;
    ppo)
        SHAPE=(algorithm.spo.group.responses="${RESPONSES:-12}"
               critic.optim.lr="${CRITIC_LR:-3e-4}") ;;
    *)
        SHAPE=(algorithm.spo.group.responses="${RESPONSES:-12}") ;;
esac

export VERL_FILE_LOGGER_PATH=${VERL_FILE_LOGGER_PATH:-$OUT/metrics.jsonl}
mkdir -p "$OUT"

# bypass_mode: in float32 the sampler's log-probs are the trainer's to 1e-5, no need to compute them again.
exec "$PYTHON" -m recipe.spo.main_spo \
    method="${METHOD//-/_}" \
    "${SHAPE[@]}" \
    data.train_files="$DATA/train.parquet" \
    data.val_files="$DATA/validation.parquet" \
    data.train_batch_size="$QUESTIONS" \
    data.max_prompt_length=128 \
    data.max_response_length=96 \
    algorithm.spo.optimizer_steps="$OPTIMIZER_STEPS" \
    algorithm.rollout_correction.bypass_mode=True \
    actor_rollout_ref.model.path="$MODEL" \
    actor_rollout_ref.rollout.temperature=1.0 \
    actor_rollout_ref.actor.use_kl_loss=False \
    actor_rollout_ref.actor.optim.lr="$LR" \
    actor_rollout_ref.actor.optim.lr_scheduler_type=cosine \
    trainer.experiment_name="tiny_arithmetic_${METHOD//-/_}" \
    trainer.default_local_dir="$OUT/checkpoints" \
    trainer.resume_mode=disable \
    trainer.total_training_steps="$STEPS" \
    trainer.test_freq=8 \
    trainer.save_freq="$STEPS" \
    trainer.logger='[console,file]' \
    "$@"
