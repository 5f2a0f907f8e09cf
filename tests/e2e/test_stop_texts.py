"""A text of `algorithm.spo.stop` ends responses in the real vLLM, in training and in validation."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from recipe.spo.dump import TREES, node_of, read_dump
from recipe.spo.tree import endings
from tests.e2e.stack import step_metrics_of, train

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_responses_end_at_the_text(arithmetic, policy, tmp_path):
    """The policy's solutions hold "####" before the answer: ended there, none has an answer."""
    done = train(
        arithmetic,
        policy,
        tmp_path,
        "algorithm.spo.tree.branch_factors=[3,2,2]",
        "algorithm.spo.tree.segment_length=6",
        "algorithm.spo.stop=['####']",
        "trainer.total_training_steps=1",
        "trainer.test_freq=1",
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    tokenizer = AutoTokenizer.from_pretrained(policy)
    ended = 0
    for tree in read_dump(tmp_path / "dump", TREES):
        for response_ids, leaf in endings(node_of(tree["root"])):
            text = tokenizer.decode(response_ids, skip_special_tokens=True)
            assert "####" not in tokenizer.decode(response_ids[:-1], skip_special_tokens=True)
            if "####" in text:
                ended += 1
                assert leaf.finished and response_ids[-1] != tokenizer.eos_token_id and leaf.verdict != "unfinished"
    assert ended > 10
    (metrics,) = step_metrics_of(tmp_path).values()
    assert [value for name, value in metrics.items() if name.startswith("val-core/")] == [0.0]
    assert metrics["spo/verdict/correct_share"] == 0.0
