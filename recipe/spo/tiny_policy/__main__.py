"""Entry point of `python -m recipe.spo.tiny_policy`."""

import os

# Before torch is imported: where the other cores are busy, threads that spin while they wait for one
# another are ten times slower than a single one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from data_prep.writer import run  # noqa: E402
from recipe.spo.tiny_policy.command import main  # noqa: E402

if __name__ == "__main__":
    run(main)
