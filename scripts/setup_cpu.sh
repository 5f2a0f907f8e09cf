#!/usr/bin/env bash
# Make a virtual environment that runs the whole stack on a machine without a GPU.
# Usage: [PYTHON=python3.11] [VENV=.venv] scripts/setup_cpu.sh      Safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3.11}
VENV=${VENV:-.venv}
TORCH="torch==2.13.0+cpu"
TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || {
    echo "error: $PYTHON is $("$PYTHON" --version 2>&1); Python 3.11 or 3.12 is needed: make setup PYTHON=<path>" >&2
    exit 2
}
"$VENV/bin/python" -m pip --version >/dev/null 2>&1 || "$PYTHON" -m venv --clear "$VENV"
pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }

echo "Setting up $VENV (a few minutes on the first run) ..."
# The ordinary index where it has the CPU build of torch; PyTorch's own where it has not.
if [ "torch==$("$VENV/bin/python" -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null)" != "$TORCH" ]; then
    pip install -q "$TORCH" 2>/dev/null || pip install -q "$TORCH" --extra-index-url "$TORCH_CPU_INDEX"
fi
pip install -q -e '.[cpu,dev]' -c scripts/constraints_cpu.txt
# Pulled in by others as CUDA builds, which break `import transformers` beside a CPU torch; nothing
# here needs them.
pip uninstall -q -y torchvision torchaudio torchcodec >/dev/null 2>&1 || true
"$VENV/bin/python" - <<'EOF'
from recipe.spo.main_spo import check_plugin
check_plugin()
EOF
echo "Done: $VENV"
