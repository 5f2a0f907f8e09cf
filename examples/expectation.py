"""How many tokens the plan expects of an experiment on the small scale, from responses of the tiny policy.

The responses are sampled with transformers, not with what trains, so that `check_experiments` compares two
independent numbers: this one, and what a run logs as generated.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from recipe.spo.cutting import chain_partition
from recipe.spo.expected import expected_tokens
from recipe.spo.settings import SPOSettings
from recipe.spo.tree import Node

QUESTIONS, SAMPLES, SEED = 256, 2, 7


def expected_of(overrides: Sequence[str], steps: int) -> float:
    """Tokens that a run of so many steps generates on average.

    Args:
        overrides: of the run; its policy and training data must be there.
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
    responses = sample(
        str(config.actor_rollout_ref.model.path),
        str(config.data.train_files),
        config.actor_rollout_ref.rollout.temperature,
        config.data.max_response_length,
    )
    lengths = [len(response.token_ids) for response in responses]
    even = segment_tokens(settings, responses, str(config.actor_rollout_ref.model.path))
    a_question = (
        expected_tokens(settings, lengths, config.data.max_response_length, step, even) for step in range(1, steps + 1)
    )
    return config.data.train_batch_size * sum(a_question)


def segment_tokens(settings: SPOSettings, responses: Sequence[Node], policy: str) -> float | None:
    """Mean tokens of a segment where cuts depend on probabilities or text; else `None`."""
    shape = settings.chain or settings.tree
    if shape is None or shape.partition in ("fixed_length", "equal_parts"):
        return None
    tokens = sum(len(response.token_ids) for response in responses)
    if shape.partition == "low_probability":
        below = math.log(settings.cut_threshold)
        improbable = sum(log_prob < below for response in responses for log_prob in response.log_probs)
        return shape.cut_interval * tokens / improbable
    from transformers import AutoTokenizer

    cut = chain_partition(shape, settings.cut_threshold, AutoTokenizer.from_pretrained(policy).decode)
    return tokens / sum(len(cut(response)) for response in responses)


@functools.cache
def sample(policy: str, data: str, temperature: float, most: int) -> list[Node]:
    """Responses of a policy to training questions, with the log-probs that they were sampled with."""
    import pyarrow.parquet as pq
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32).eval()
    rows = pq.read_table(Path(data), columns=["prompt"]).slice(0, QUESTIONS).to_pylist()
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
            top_p=1.0,
            num_return_sequences=SAMPLES,
            output_scores=True,
            return_dict_in_generate=True,
        )
    ids = output.sequences[:, inputs["input_ids"].shape[1] :]
    chosen = torch.stack(output.scores, 1).log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    return [_until_eos(tokens, scores, tokenizer.eos_token_id) for tokens, scores in zip(ids, chosen, strict=True)]


def _until_eos(tokens: torch.Tensor, log_probs: torch.Tensor, eos: int) -> Node:
    ends = (tokens == eos).nonzero()
    length = int(ends[0]) + 1 if len(ends) else len(tokens)
    return Node(tokens[:length].tolist(), log_probs[:length].tolist(), finished=bool(len(ends)))
