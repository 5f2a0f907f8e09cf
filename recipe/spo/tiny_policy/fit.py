"""The tiny policy's model, and fitting it to worked solutions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from data_prep.writer import DataError, Row

MAX_LENGTH = 512
IGNORED = -100


@dataclass(frozen=True)
class FitOptions:
    """How the policy is fitted, and when to stop."""

    steps: int = 400
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_steps: int = 20
    target: float = 0.33
    check_every: int = 10
    seed: int = 0


@dataclass(frozen=True)
class Sample:
    """The token ids of a prompt, and of its solution with the end token."""

    prompt: list[int]
    solution: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.solution)


def encode(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> list[Sample]:
    """Turns rows into token ids; the prompt is what the chat template gives a rollout.

    Raises:
        DataError: A row has a piece that the tokenizer does not know, or is too long for the model.
    """
    samples = []
    for row in rows:
        info = row["extra_info"]
        text = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
        prompt = tokenizer(text)["input_ids"]
        solution = [*tokenizer(info["answer"])["input_ids"], tokenizer.eos_token_id]
        sample = Sample(prompt, solution)
        where = f"{info['split']} row {info['index']}"
        if tokenizer.unk_token_id in prompt + solution:
            raise DataError(f"{where}: has a word that no training row has; prepare more of those")
        if len(sample) > MAX_LENGTH:
            raise DataError(f"{where}: has {len(sample)} tokens, at most {MAX_LENGTH} are possible")
        samples.append(sample)
    return samples


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Builds the untrained model from torch's current random state."""
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
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
        dtype="float32",
        **special,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(**special)
    return model


def collate(batch: Sequence[Sample], pad: int) -> dict[str, torch.Tensor]:
    """Pads a batch on the right; only solutions and their end tokens are learnt."""
    width = max(map(len, batch))
    ids, mask, labels = [], [], []
    for sample in batch:
        fill = width - len(sample)
        ids.append([*sample.prompt, *sample.solution, *[pad] * fill])
        mask.append([1] * len(sample) + [0] * fill)
        labels.append([*[IGNORED] * len(sample.prompt), *sample.solution, *[IGNORED] * fill])
    return {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor(mask),
        "labels": torch.tensor(labels),
    }


def learning_rate_factor(step: int, options: FitOptions) -> float:
    """Gives the share of the peak learning rate at a step: a rise, then the peak.

    It does not fall: when the fit stops, what is learnt is still rough, which reinforcement learning
    at a small learning rate can mend.
    """
    return min(1.0, (step + 1) / options.warmup_steps)


def fit(
    model: LlamaForCausalLM,
    samples: Sequence[Sample],
    options: FitOptions,
    accuracy: Callable[[], float] | None = None,
) -> list[float]:
    """Fits the model in place until it is right often enough and returns the loss of every step.

    Args:
        model: What to fit.
        samples: What to fit it to.
        options: `steps` is the most steps, `target` the accuracy to stop at.
        accuracy: Measures the model, every `check_every` steps; without it all steps are taken.
    """
    order = torch.Generator().manual_seed(options.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, options))
    waiting: list[int] = []
    losses: list[float] = []
    bar = tqdm(range(options.steps), desc="fitting", unit="step")
    for step in bar:
        model.train()
        while len(waiting) < options.batch_size:
            waiting += torch.randperm(len(samples), generator=order).tolist()
        chosen, waiting = waiting[: options.batch_size], waiting[options.batch_size :]
        batch = collate([samples[i] for i in chosen], model.config.pad_token_id)
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{losses[-1]:.3f}")
        if accuracy is not None and (step + 1) % options.check_every == 0 and accuracy() >= options.target:
            break
    bar.close()
    return losses
