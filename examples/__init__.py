"""Runnable examples: bash scripts for training, and the programs behind `make demo` and `make smoke-gsm8k`."""
