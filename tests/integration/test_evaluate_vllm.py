"""The command with a real vLLM on a tiny policy: interrupted and run again, it gives the same files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.integration, pytest.mark.slow]  # vLLM starts three times


@pytest.fixture(scope="module")
def untrained(tmp_path_factory, arithmetic):
    """A policy with random weights; it ends a response after some sixty tokens."""
    import torch

    from data_prep.writer import read_split
    from recipe.spo.tiny_policy.fit import build_model
    from recipe.spo.tiny_policy.tokenizer import build_tokenizer

    out = tmp_path_factory.mktemp("untrained")
    infos = [row["extra_info"] for row in read_split(arithmetic, "train")]
    tokenizer = build_tokenizer([text for info in infos for text in (info["question"], info["answer"])], 256)
    torch.manual_seed(0)
    build_model(tokenizer).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def start(policy, data, out) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "recipe.spo.evaluate", "run", str(policy), "--data", str(data), "--out", str(out)]
    command += ["--samples", "8", "--temperature", "1", "--max-context", "128", "--batch-questions", "2", "--log-probs"]
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_an_interrupted_run_gives_the_files_of_a_whole_one(untrained, arithmetic, tmp_path):
    whole = start(untrained, arithmetic, tmp_path / "whole")
    output, _ = whole.communicate(timeout=240)
    assert whole.returncode == 0 and "mean@8" in output, output[-3000:]
    numbers = json.loads((tmp_path / "whole" / "result.json").read_text())["overall"]
    assert numbers["questions"] == 32
    assert 0 < numbers["unfinished"]["value"] < 1
    rows = pq.read_table(tmp_path / "whole" / "responses.parquet", columns=["token_ids", "log_probs"]).to_pylist()
    assert all(len(row["token_ids"]) == len(row["log_probs"]) and max(row["log_probs"]) <= 0 for row in rows)
    assert min(min(row["log_probs"]) for row in rows) < -1

    out = tmp_path / "interrupted"
    stopped = start(untrained, arithmetic, out)
    first = out / "chunks" / "00000.parquet"
    deadline = time.monotonic() + 240
    while not first.exists() and stopped.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    stopped.send_signal(signal.SIGINT)
    output, _ = stopped.communicate(timeout=60)
    assert stopped.returncode == 130 and "to go on: python -m recipe.spo.evaluate run" in output, output[-3000:]
    assert 1 <= len(list((out / "chunks").glob("*.parquet"))) < 16 and not (out / "result.json").exists()

    output, _ = start(untrained, arithmetic, out).communicate(timeout=240)
    assert (out / "result.json").exists(), output[-3000:]
    for name in ("result.json", "responses.parquet", "run.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
