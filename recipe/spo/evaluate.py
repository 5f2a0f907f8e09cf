"""`python -m recipe.spo.evaluate`: evaluate a policy, compare evaluations. See docs/evaluation.md."""

from __future__ import annotations

import os
import sys

from recipe.spo.evaluation.command import main

if __name__ == "__main__":
    status = main()
    if "vllm" in sys.modules:
        # Everything is on disk and every child has ended. An ordinary exit prints a screen of
        # warnings about leaks in triton's bindings, below the result.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
