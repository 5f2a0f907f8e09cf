"""Measuring how often a policy answers right, with the reward that training uses."""

from collections.abc import Sequence

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from data_prep.writer import Row
from recipe.spo.rewards.score import compute_score
from recipe.spo.tiny_policy.fit import encode

# Tokens a response may have beyond the longest worked solution.
SLACK = 8


@torch.no_grad()
def respond(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float = 0.0,
) -> list[str]:
    """Answers prompts in one batch: greedily at temperature 0, else sampled without any cut-off."""
    model.eval()
    pad = tokenizer.pad_token_id
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(prompt)) + [*prompt] for prompt in prompts])
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    output = model.generate(
        input_ids=ids,
        attention_mask=(ids != pad).long(),
        max_new_tokens=max_new_tokens,
        **(sampling if temperature else {"do_sample": False}),
    )
    return tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)


def accuracy(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[Row],
    temperature: float = 0.0,
) -> float:
    """Gives the share of rows answered right."""
    samples = encode(tokenizer, rows)
    budget = max(len(sample.solution) for sample in samples) + SLACK
    texts = respond(model, tokenizer, [s.prompt for s in samples], budget, temperature)
    scores = [
        compute_score(row["data_source"], text, row["reward_model"]["ground_truth"])["acc"]
        for row, text in zip(rows, texts, strict=True)
    ]
    return sum(scores) / len(scores)
