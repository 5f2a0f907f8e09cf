"""The value bench through vLLM: the whole command, twice, ends in the same numbers; probabilities are those
that tokens were drawn with."""

from __future__ import annotations

import json

import pytest

from tests.conftest import run_module

pytestmark = [pytest.mark.integration, pytest.mark.slow]  # vLLM starts four times

OPTIONS = ["--questions", "2", "--truth", "8", "--chunk", "1", "--groups", "4", "--continuations", "2"]
OPTIONS += ["--trees", "3-2@8", "--cut-trees", "3-2@8", "--step-tokens", "500", "--question-tokens", "100"]


def test_two_runs_end_in_the_same_numbers_and_the_second_half_can_come_later(policy, arithmetic, tmp_path):
    results = []
    for out in (tmp_path / "first", tmp_path / "second"):
        command = ["recipe.spo.bench_values", policy, "--data", arithmetic, "--out", out, *OPTIONS]
        done = run_module(*command, timeout=600)
        assert done.returncode == 0, done.stderr
        results.append((out / "result.json").read_bytes())
        assert "Policy gradient" in done.stdout and (out / "gradient.png").exists()
    assert results[0] == results[1]
    found = json.loads(results[0])
    assert found["truth"]["continuations"] == 8 and found["run"]["engine"]["device"] == "cpu"
    assert all(row["tokens"] > 0 for row in found["methods"])
    # what a run that stopped in its last chunk of rollouts leaves behind
    (tmp_path / "second" / "rollouts" / "00001.json").unlink()
    (tmp_path / "second" / "result.json").unlink()
    done = run_module(*command, timeout=600)
    assert done.returncode == 0 and "2 of 2 questions have their truth, 1 their rollouts" in done.stdout, done.stderr
    assert (tmp_path / "second" / "result.json").read_bytes() == results[0]


def test_log_probs_are_those_after_temperature(policy, arithmetic, tmp_path):
    """As in verl's rollouts: mask, cuts and shared continuations are those of the policy that is sampled."""
    import torch
    from transformers import AutoModelForCausalLM

    from recipe.spo.evaluation.prompts import load_tokenizer, render
    from recipe.spo.evaluation.protocol import Protocol
    from recipe.spo.evaluation.questions import read_questions

    temperature, options = 0.5, ["--temperature", "0.5", "--no-gradient", "--stop", "nowhere"]
    command = ["recipe.spo.bench_values", policy, "--data", arithmetic, "--out", tmp_path / "out", *OPTIONS, *options]
    done = run_module(*command, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "truth" / "run.json").read_text())["engine"]["log_probs"] == "processed"
    protocol = Protocol(samples=1, temperature=1.0, top_p=1.0, top_k=-1, max_context=512, max_new_tokens=96, seed=0)
    (prompt, *_) = render(read_questions(arithmetic, None, 2), load_tokenizer(policy, None), protocol)
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    found = json.loads((tmp_path / "out" / "truth" / "00000.json").read_text())["rows"][0]
    for reference in found:
        ids = torch.tensor([[*prompt.token_ids, *reference["token_ids"]]])
        with torch.no_grad():
            logits = model(ids).logits[0, len(prompt.token_ids) - 1 : -1]
        drawn = torch.tensor(reference["token_ids"])[:, None]
        expected = torch.log_softmax(logits / temperature, -1).gather(-1, drawn)[:, 0]
        raw = torch.log_softmax(logits, -1).gather(-1, drawn)[:, 0]
        assert torch.allclose(torch.tensor(reference["log_probs"]), expected, atol=1e-3)
        assert not torch.allclose(raw, expected, atol=1e-2)
