#!/usr/bin/env bash
# SPO-tree on generated arithmetic: what `make demo` runs. See run_tiny_arithmetic.sh for the variables
# (QUESTIONS, BRANCH_FACTORS, SEGMENT_LENGTH, STEPS, LR, ...); every argument is passed on to verl.
METHOD=tree exec bash "$(dirname "${BASH_SOURCE[0]}")/run_tiny_arithmetic.sh" "$@"
