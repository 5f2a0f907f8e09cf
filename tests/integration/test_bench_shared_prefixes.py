"""`benchmarks.shared_prefixes`: batches as the queue gives them, all of them on both sides, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.integration

MEASURED = {
    "rows": 8,
    "tokens": 200,
    "distinct": 100,
    "limit": 64,
    "computed": 120.0,
    "plain": False,
    "forward": 1.0,
    "update": 4.0,
    "forward_cpu": 1.0,
    "update_cpu": 4.0,
    "peak": 2**30,
    "device": "CPU, 1 threads",
    "gpu": False,
    "dtype": "float32",
    "loss": 0.5,
    "grad_norm": 2.0,
    "log_probs": np.full(9, -1.0),
}


def test_rows_of_one_length_are_jagged_all_the_same():
    """verl stacks such rows, and takes stacked ones for padded; the TransferQueue never gives those."""
    from transfer_queue.storage.managers.simple_storage_manager import AsyncSimpleStorageManager

    from benchmarks.prefix_batches import make_rows
    from benchmarks.prefix_measure import batch_of

    rows = make_rows("group", 1, None, 500, 0)
    assert len({len(row.prompt_ids) for row in rows}) == 1
    data = batch_of([rows[0], rows[0]])
    for name in ("prompts", "responses", "input_ids", "position_ids", "response_mask", "advantages", "old_log_probs"):
        assert data[name].is_nested, name
        assert AsyncSimpleStorageManager._pack_field_values(list(data[name].unbind())).is_nested, name
    assert data["prompts"].offsets().diff().tolist() == [100, 100]


def test_the_longest_row_of_every_batch_fits_a_micro_batch():
    from benchmarks.prefix_batches import BATCHES, make_rows
    from benchmarks.prefix_measure import token_limit

    limits = {}
    for name in BATCHES:
        lengths = [len(row.prompt_ids) + len(row.response_ids) for row in make_rows(name, 1, None, 500, 0)]
        limits[name] = token_limit(2048, lengths)  # the default of --tokens
        assert limits[name] >= max(lengths), name
    assert limits["math"] > 2048 and limits["gsm8k"] == 2048


def test_sides_that_differ_are_not_compared(capsys):
    from benchmarks.shared_prefixes import report

    faster = MEASURED | {"update": 2.0, "update_cpu": 2.0, "log_probs": MEASURED["log_probs"] + 1e-5}
    assert report("gsm8k", {"off": [MEASURED], "auto": [faster]}) == 2.0
    assert "ratio 2.00" in (said := capsys.readouterr().out) and "warning" not in said
    for wrong in ({"grad_norm": 2.1}, {"loss": 0.6}, {"log_probs": np.full(9, -1.1)}, {"grad_norm": float("nan")}):
        with pytest.raises(RuntimeError, match="gsm8k: both sides differ"):
            report("gsm8k", {"off": [MEASURED], "auto": [faster | wrong]})


def test_a_busy_machine_is_told(capsys):
    from benchmarks.shared_prefixes import report

    report("gsm8k", {"off": [MEASURED], "auto": [MEASURED | {"update_cpu": 2.0}]})
    assert capsys.readouterr().out.count("the machine was busy") == 1


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.shared_prefixes", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow  # eight processes that load verl
def test_all_batches_run_and_rows_that_share_nothing_are_computed_one_by_one():
    # 256 tokens, fewer than some rows have.
    done = run("--random", "llama-tiny", "--rows", "6", "--repeats", "1", "--tokens", "256")
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    batches = {line.split(":")[0]: line for line in lines if " times the distinct ones" in line}
    assert list(batches) == ["gsm8k", "math", "group", "apart"]
    assert "(one by one)" in batches["apart"] and "(one by one)" not in batches["gsm8k"]
    assert lines[-1].startswith("ratio: ") and float(lines[-1].removeprefix("ratio: ")) > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--random", "llama-tiny", "--repeats", "0"], "--repeats is 0: at least 1"),
        (["--model", "no/such/folder"], "--model no/such/folder: no model there"),
    ],
)
def test_wrong_arguments_are_refused(arguments, said):
    done = run(*arguments)
    assert done.returncode == 2 and said in done.stderr
