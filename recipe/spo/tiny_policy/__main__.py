"""Entry point of `python -m recipe.spo.tiny_policy`."""

from data_prep.writer import run
from recipe.spo.tiny_policy.command import main

if __name__ == "__main__":
    run(main)
