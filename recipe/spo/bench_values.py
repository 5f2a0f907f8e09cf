"""`python -m recipe.spo.bench_values`: how accurate each method's values and gradients are. See docs/evidence.md."""

from __future__ import annotations

import os
import sys

from recipe.spo.bench.command import main

if __name__ == "__main__":
    status = main()
    if "vllm" in sys.modules:
        # As in recipe.spo.evaluate: an ordinary exit prints a screen of warnings below the result.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
