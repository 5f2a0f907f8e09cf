"""Runs under torchrun, with a model's folder and overrides: one optimiser batch through verl's real FSDP2 engine.

The batch is split in several ways. Prints, on rank 0, a JSON list of {split, loss, grad_norm}; the learning rate is
zero, so that every split meets the same weights.
"""

from __future__ import annotations

import json
import os
import sys

import torch
from omegaconf import OmegaConf
from tensordict import NonTensorData, TensorDict

from benchmarks.verl_actor import actor_worker
from tests.integration.torchrun import composed


def rows(vocabulary: int) -> list[dict]:
    """Six rows of a tree as the worker writes them, of different lengths, masks and advantages."""
    from recipe.spo.rollout.worker import row_fields
    from recipe.spo.rows import Row

    random = torch.Generator().manual_seed(0)
    made = []
    for prompt, response, advantage in (
        (5, 9, 0.5),
        (7, 3, -0.25),
        (4, 12, 0.125),
        (9, 1, 1.0),
        (6, 5, -1.0),
        (5, 7, 0.75),
    ):
        ids = torch.randint(3, vocabulary, (prompt + response,), generator=random).tolist()
        mask = (torch.rand(response, generator=random) < 0.6).int().tolist()
        mask[0] = 1
        log_probs = (-3 * torch.rand(response, generator=random)).tolist()
        made.append(
            row_fields(Row((0,), ids[:prompt], ids[prompt:], mask, [advantage * m for m in mask], log_probs, 0.5))
        )
    return made


def with_padding(made: list[dict], total: int, eos: int) -> list[dict]:
    """Fill up with the padding rows that verl itself makes."""
    from verl.trainer.ppo.padding_utils import construct_minimal_padding_template

    pad, _ = construct_minimal_padding_template(made[0], {}, eos)
    pad.pop("attention_mask")
    return made + [pad] * (total - len(made))


def batch(made: list[dict]) -> TensorDict:
    """verl's batch, after the estimator has handed the advantages over."""
    from verl.utils.tensordict_utils import list_of_dict_to_tensordict

    from recipe.spo.algorithm import compute_spo_advantage, row_advantages

    data = list_of_dict_to_tensordict(made)
    mask = data["response_mask"].to_padded_tensor(0)
    with row_advantages(data["spo_advantages"].to_padded_tensor(0.0)):
        advantages, _ = compute_spo_advantage(torch.zeros_like(mask, dtype=torch.float32), mask)
    lengths = data["response_mask"].offsets().diff().tolist()
    data["advantages"] = torch.nested.as_nested_tensor(
        [row[:n] for row, n in zip(advantages, lengths, strict=True)], layout=torch.jagged
    )
    data["old_log_probs"] = data["rollout_log_probs"]
    data["ref_log_prob"] = data["rollout_log_probs"] * 1.1
    return data


def main(model: str, *overrides: str) -> None:
    config = composed(model, *overrides)
    from verl.utils import tensordict_utils as tu
    from verl.utils.config import omega_conf_to_dataclass

    OmegaConf.resolve(config)
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    actor.engine.use_dynamic_bsz = False
    worker = actor_worker(config, actor)

    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    plain = rows(worker.model_config.hf_config.vocab_size)
    padded = batch(with_padding(plain, total=8, eos=1))
    share = len(padded) // ranks
    cases = [(padded, split) for split in sorted({1, 4 // ranks, share})]
    if ranks == 1:
        cases.append((batch(plain), len(plain)))
    results = []
    for data, split in cases:
        mine = tu.chunk_tensordict(data, ranks)[rank].copy()
        tu.assign_non_tensor(
            mine,
            global_batch_size=len(data),
            mini_batch_size=len(data),
            temperature=1.0,
            micro_batch_size_per_gpu=split,
            use_dynamic_bsz=False,
            global_token_num=NonTensorData([1]),
        )
        metrics = tu.get(worker.train_batch(mine), "metrics")
        results.append({"split": split, "loss": metrics["loss"], "grad_norm": metrics["grad_norm"]})
    if rank == 0:
        print("RESULT " + json.dumps(results), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
