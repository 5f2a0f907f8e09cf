"""Shared fixtures: a small data set and policy, made once a test session."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

REPOSITORY = Path(__file__).parents[1]

# A shell that starts the tests in the background has SIGINT ignored, in them and in all that they start; some of them
# are about Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("shared cores", deadline=None)
hypothesis.settings.load_profile("shared cores")


def run_module(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run `python -m ...` in the repository, as a user does."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout
    )


@pytest.fixture(scope="session")
def arithmetic(tmp_path_factory) -> Path:
    """A folder with train, validation and test problems of one or two steps."""
    out = tmp_path_factory.mktemp("arithmetic")
    options = ["--train", "600", "--validation", "32", "--test", "32", "--min-steps", "1", "--max-steps", "2"]
    done = run_module("data_prep.arithmetic", "--out", out, *options)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def policy(tmp_path_factory, arithmetic) -> Path:
    """A policy fitted for seconds: ends its responses, and is sometimes right on the easy problems."""
    out = tmp_path_factory.mktemp("policy") / "policy"
    script = """
import sys, torch
from pathlib import Path
from data_prep.writer import read_split
from recipe.spo.tiny_policy.fit import FitOptions, build_model, encode, fit
from recipe.spo.tiny_policy.tokenizer import build_tokenizer
torch.manual_seed(0); torch.set_num_threads(2)
rows = read_split(Path(sys.argv[1]), "train")
tokenizer = build_tokenizer([t for r in rows for t in (r["extra_info"]["question"], r["extra_info"]["answer"])], 256)
model = build_model(tokenizer)
fit(model, encode(tokenizer, rows), FitOptions(steps=150))
model.save_pretrained(sys.argv[2]); tokenizer.save_pretrained(sys.argv[2])
"""
    command = [sys.executable, "-c", script, str(arithmetic), str(out)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    return out
