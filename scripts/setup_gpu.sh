#!/usr/bin/env bash
# Make a virtual environment for a machine with NVIDIA GPUs: verl's own set of releases (its extra `vllm`).
# Usage: [PYTHON=python3.11] [GPU_VENV=.venv-gpu] scripts/setup_gpu.sh      Safe to run again.
# Without a GPU it does nothing; to build an image on such a machine: SPO_PLATFORM=gpu scripts/setup_gpu.sh
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3.11}
GPU_VENV=${GPU_VENV:-.venv-gpu}

fail() { echo "error: $*" >&2; exit 2; }
[ "${SPO_PLATFORM:-}" = gpu ] || compgen -G '/dev/nvidia[0-9]*' >/dev/null || compgen -G /dev/dxg >/dev/null ||
    fail "this machine has no NVIDIA GPU: \`make setup\` makes the environment for the CPU (to build an image for GPUs here, set SPO_PLATFORM=gpu)"
[ ! -e "$GPU_VENV/.spo-cpu" ] ||
    fail "$GPU_VENV is the CPU's environment, which \`make setup\` made: give another folder with GPU_VENV="
"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null ||
    fail "$PYTHON is not Python 3.11 or 3.12: make setup-gpu PYTHON=<path>"
"$GPU_VENV/bin/python" -m pip --version >/dev/null 2>&1 || "$PYTHON" -m venv --clear "$GPU_VENV"

echo "Setting up $GPU_VENV (several GB on the first run) ..."
"$GPU_VENV/bin/python" -m pip --disable-pip-version-check install -q -e '.[gpu,dev]'
"$GPU_VENV/bin/python" -m recipe.spo.compat.gpu_stack
echo "Done: $GPU_VENV. Use it with: make train-gsm8k PY=$GPU_VENV/bin/python"
