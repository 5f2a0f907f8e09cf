"""Segment Policy Optimization (SPO, arXiv 2505.23564) for verl.

Not to be confused with Single-stream Policy Optimization (arXiv 2509.13232), which shares the
acronym. Importing this package is cheap: verl, vLLM and Ray are imported by the edge modules
(`plugin`, `rollout.worker`, `trainer`, `main_spo`) only.
"""

__version__ = "0.1.0"

#: The one verl release this package is written against (see `compat/versions.py`).
VERL_VERSION = "0.9.1"
