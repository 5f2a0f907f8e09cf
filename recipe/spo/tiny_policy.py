"""A policy of under a million parameters that is right some of the time: where a CPU demo starts.

A small Llama is fitted from scratch on the worked solutions of a prepared data set and stopped early,
so that reinforcement learning has both right and wrong answers to learn from. The result is an
ordinary Hugging Face folder, in float32.
"""

import argparse
import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from data_prep.writer import DataError, Row, read_split, run
from recipe.spo.rewards.gsm8k import compute_score
from recipe.spo.tiny_tokenizer import build_tokenizer, split_pieces

# Part of the fingerprint: raise it with every change that makes another model from the same options.
VERSION = 1
FINGERPRINT = "tiny_policy.json"

MAX_LENGTH = 512
MAX_PIECES = 512
GRADED_PROBLEMS = 200
USEFUL_ACCURACY = (0.03, 0.5)
IGNORED = -100


@dataclass(frozen=True)
class Options:
    """How the policy is fitted."""

    steps: int = 500
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_steps: int = 20
    seed: int = 0
    threads: int = 2


@dataclass(frozen=True)
class Sample:
    """The token ids of a prompt, and of its solution with the end token."""

    prompt: list[int]
    solution: list[int]


def encode(tokenizer: PreTrainedTokenizerFast, rows: list[Row]) -> list[Sample]:
    """Turns rows into token ids; the prompt is what the chat template gives a rollout.

    Raises:
        DataError: A row has a piece that the tokenizer does not know, or is too long for the model.
    """
    samples = []
    for row in rows:
        info = row["extra_info"]
        text = tokenizer.apply_chat_template(
            row["prompt"], add_generation_prompt=True, tokenize=False
        )
        prompt = tokenizer(text)["input_ids"]
        solution = [*tokenizer(info["answer"])["input_ids"], tokenizer.eos_token_id]
        where = f"{info['split']} row {info['index']}"
        if tokenizer.unk_token_id in prompt + solution:
            raise DataError(f"{where}: has a word that no training problem has; prepare more of them")
        if len(prompt) + len(solution) > MAX_LENGTH:
            raise DataError(f"{where}: longer than {MAX_LENGTH} tokens; use fewer --max-steps")
        samples.append(Sample(prompt, solution))
    return samples


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Builds the untrained model."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model


def collate(batch: list[Sample], pad: int) -> dict[str, torch.Tensor]:
    """Pads a batch on the right; only solutions and their end tokens are learnt."""
    width = max(len(sample.prompt) + len(sample.solution) for sample in batch)
    ids, mask, labels = [], [], []
    for sample in batch:
        length = len(sample.prompt) + len(sample.solution)
        fill = width - length
        ids.append([*sample.prompt, *sample.solution, *[pad] * fill])
        mask.append([1] * length + [0] * fill)
        labels.append([*[IGNORED] * len(sample.prompt), *sample.solution, *[IGNORED] * fill])
    return {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor(mask),
        "labels": torch.tensor(labels),
    }


def learning_rate_factor(step: int, options: Options) -> float:
    """Gives the share of the learning rate at a step (from 0): a rise, then a straight way to 0."""
    if step < options.warmup_steps:
        return (step + 1) / options.warmup_steps
    return (options.steps - step) / (options.steps - options.warmup_steps)


def fit(model: LlamaForCausalLM, samples: list[Sample], options: Options, pad: int) -> float:
    """Fits the model to the solutions and returns the loss of the last batch."""
    order = torch.Generator().manual_seed(options.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, options)
    )
    model.train()
    bar = tqdm(range(options.steps), desc="fitting", unit="step")
    waiting: list[int] = []
    for _ in bar:
        while len(waiting) < options.batch_size:
            waiting += torch.randperm(len(samples), generator=order).tolist()
        chosen, waiting = waiting[: options.batch_size], waiting[options.batch_size :]
        loss = model(**collate([samples[i] for i in chosen], pad)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    return loss.item()


@torch.no_grad()
def respond(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[list[int]],
    max_new_tokens: int,
    temperature: float = 0.0,
) -> list[str]:
    """Answers prompts all at once: greedily, or sampled where a temperature is given."""
    model.eval()
    width = max(map(len, prompts))
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {}
    out = model.generate(
        input_ids=ids,
        attention_mask=(ids != pad).long(),
        max_new_tokens=max_new_tokens,
        **(sampling or {"do_sample": False}),
    )
    return tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)


def grade(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    rows: list[Row],
    temperature: float = 0.0,
) -> float:
    """Measures the share of right answers, with the reward that training uses."""
    samples = encode(tokenizer, rows)
    longest = max(len(sample.solution) for sample in samples)
    texts = respond(model, tokenizer, [s.prompt for s in samples], longest + 8, temperature)
    scores = [
        compute_score(row["data_source"], text, row["reward_model"]["ground_truth"])["acc"]
        for row, text in zip(rows, texts, strict=True)
    ]
    return sum(scores) / len(scores)
