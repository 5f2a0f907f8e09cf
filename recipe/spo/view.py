"""`python -m recipe.spo.view`: look at dumped trees and chains. See docs/viewer.md."""

from __future__ import annotations

import sys

from recipe.spo.viewer.command import main

if __name__ == "__main__":
    sys.exit(main())
