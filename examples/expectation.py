"""How many tokens the plan expects of an experiment on the small scale, from responses of the tiny policy.

The responses are sampled with transformers, not with what trains, so that `check_experiments` compares two
independent numbers: this one, and what a run logs as generated.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from recipe.spo.expected import Sample, expected_tokens
from recipe.spo.tree import Node

SAMPLES, SEED = 64, 7  # responses a question
#: Tokens of a prompt, and responses to it.
Question = tuple[int, tuple[Node, ...]]


def expected_of(overrides: Sequence[str], steps: int) -> float:
    """Tokens that a run of so many steps generates on average.

    Args:
        overrides: of the run, which takes the training questions in their order; policy and data must be there.
        steps: of the run.
    """
    import verl  # noqa: F401  # its configurations are on Hydra's search path
    from hydra import compose, initialize_config_module

    from recipe.spo.parsing import settings_of
    from recipe.spo.plugin import register_resolver

    register_resolver()
    with initialize_config_module("recipe.spo.config", version_base=None):
        config = compose("spo_trainer", overrides=list(overrides))
    settings = settings_of(config, config.data.max_response_length)
    batch, most = config.data.train_batch_size, config.data.max_response_length
    rollout, policy = config.actor_rollout_ref.rollout, str(config.actor_rollout_ref.model.path)
    questions = sample(policy, str(config.data.train_files), batch * steps, rollout.temperature, rollout.top_p, most)
    from transformers import AutoTokenizer

    decode = AutoTokenizer.from_pretrained(policy).decode
    total = 0.0
    for number, (prompt_tokens, responses) in enumerate(questions):
        step = 1 + number // batch
        budget = settings.response_budget(step, prompt_tokens, most)
        total += expected_tokens(settings, Sample((responses,), True, True), budget, step, decode)
    return total


@functools.cache
def sample(policy: str, data: str, questions: int, temperature: float, top_p: float, most: int) -> list[Question]:
    """The first training questions, each with responses and the log-probs that they were sampled with."""
    import pyarrow.parquet as pq
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32).eval()
    rows = pq.read_table(Path(data), columns=["prompt"]).slice(0, questions).to_pylist()
    inputs: Any = tokenizer.apply_chat_template(
        [row["prompt"] for row in rows],
        add_generation_prompt=True,
        tokenize=True,
        padding=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        output = model.generate(
            **inputs,
            max_new_tokens=most,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=top_p,
            num_return_sequences=SAMPLES,
            output_scores=True,
            return_dict_in_generate=True,
        )
    ids = output.sequences[:, inputs["input_ids"].shape[1] :]
    chosen = torch.stack(output.scores, 1).log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    nodes = [_until_eos(tokens, scores, tokenizer.eos_token_id) for tokens, scores in zip(ids, chosen, strict=True)]
    groups = [tuple(nodes[i : i + SAMPLES]) for i in range(0, len(nodes), SAMPLES)]
    return list(zip(inputs["attention_mask"].sum(1).tolist(), groups, strict=True))


def _until_eos(tokens: torch.Tensor, log_probs: torch.Tensor, eos: int) -> Node:
    ends = (tokens == eos).nonzero()
    length = int(ends[0]) + 1 if len(ends) else len(tokens)
    return Node(tokens[:length].tolist(), log_probs[:length].tolist(), finished=bool(len(ends)))
