"""The authors' published rules, in their own terms: an oracle for what `recipe.spo` calls as published.

Written from a description of the authors' code (partition, advantages, loss), before the recipe was read, and it
imports nothing of the recipe: a mistake in one is not repeated in the other. Plain loops where a loop says the rule.

A chain's *boundary* is the number of the last token before a segment, so -1 is the state right after the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

MASK_BELOW = 0.9  # a token trains, and may begin a segment, only if its probability is strictly below this

Tree = dict[str, Any]  # "tokens"; "children" or "reward"; after `add_values` also "value", "std", "rloo", "grpo"


# ------------------------------------------------------------------------------------------------ partition
def low_probability_boundaries(probabilities: Sequence[float], interval: int) -> list[int]:
    """The tokens just before every interval-th unsure token, the first unsure one included."""
    unsure = [token for token, probability in enumerate(probabilities) if probability < MASK_BELOW]
    shifted = [token - 1 for token in unsure]
    return [boundary for number, boundary in enumerate(shifted) if number % interval == 0]


def equal_boundaries(length: int, parts: int = 4) -> list[int]:
    """The last token of every part but the last; the first `length % parts` parts are one token longer."""
    small, longer = divmod(length, parts)
    boundaries, end = [], -1
    for part in range(parts - 1):
        end += small + (1 if part < longer else 0)
        boundaries.append(end)
    return boundaries


# ---------------------------------------------------------------------------------------------------- chain
def boundary_values(rewards: Mapping[int, Sequence[float]]) -> dict[int, float]:
    """The mean reward of the rollouts from each boundary; zero where there is none."""
    return {boundary: float(np.mean(of)) if len(of) else 0.0 for boundary, of in rewards.items()}


def chain_advantages(values: Mapping[int, float], reward: float, length: int) -> np.ndarray:
    """For each token, what its segment gained. The last segment ends on the response's own reward."""
    advantages = np.zeros(length)
    boundaries = sorted(values)
    for number, boundary in enumerate(boundaries):
        if number + 1 < len(boundaries):
            end = boundaries[number + 1]
            advantages[boundary + 1 : end + 1] = values[end] - values[boundary]
        else:
            advantages[boundary + 1 :] = reward - values[boundary]
    return advantages


def without_sure_tokens(advantages: np.ndarray, probabilities: Sequence[float]) -> np.ndarray:
    """The same advantages, but zero on a token above the mask's threshold."""
    return np.where(np.asarray(probabilities) > MASK_BELOW, 0.0, advantages)


# ----------------------------------------------------------------------------------------------------- tree
def add_values(node: Tree) -> float:
    """Write values bottom-up: a leaf's is its reward, an inner node's the mean of its children's."""
    if not node.get("children"):
        node["value"] = node["reward"]
        return node["value"]
    of_children = [add_values(child) for child in node["children"]]
    node["value"] = sum(of_children) / len(of_children)
    node["std"] = math.sqrt(sum((value - node["value"]) ** 2 for value in of_children) / len(of_children))
    for child in node["children"]:
        child["rloo"] = child["value"] - node["value"]
        child["grpo"] = child["rloo"] / (node["std"] + 1e-8)
    return node["value"]


def edges(node: Tree) -> Iterator[Tree]:
    """Every node under this one, the parent before its children."""
    for child in node.get("children", ()):
        yield child
        yield from edges(child)


def training_edges(root: Tree, rule: str) -> list[Tree]:
    """The edges that give a sample: an advantage that is not zero, and a text that is not empty."""
    return [edge for edge in edges(root) if edge[rule] != 0 and edge["tokens"]]


# --------------------------------------------------------------------------------------------------- groups
def group_grpo(rewards: Sequence[float]) -> np.ndarray:
    """One number a response: its distance from the group's mean, in standard deviations."""
    of = np.asarray(rewards, dtype=float)
    return (of - of.mean()) / (of.std() + 1e-8)


def group_rloo(rewards: Sequence[float]) -> np.ndarray:
    """One number a response: its reward less the mean of the others'."""
    return np.array([reward - np.mean([*rewards[:i], *rewards[i + 1 :]]) for i, reward in enumerate(rewards)])


# ----------------------------------------------------------------------------------------------------- loss
def training_mask(response: Tensor, old_log_probs: Tensor) -> Tensor:
    """The response's tokens that the sampling policy was unsure of."""
    return response.bool() & (old_log_probs.exp() < MASK_BELOW)


def whitened(advantages: Tensor, mask: Tensor, response: Tensor) -> Tensor:
    """Mean zero and variance one over the masked tokens; over the whole response where none is masked."""
    chosen = advantages[mask if mask.any() else response.bool()]
    mean = chosen.sum() / len(chosen)
    variance = ((chosen - mean) ** 2).sum() / (len(chosen) - 1)
    return (advantages - mean) / torch.sqrt(variance + 1e-8)


def policy_term(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, clip: float = 0.2
) -> Tensor:
    """The clipped loss, averaged over the masked tokens of the micro-batch."""
    ratio = torch.exp(torch.clamp((log_probs - old_log_probs) * mask, -10.0, 10.0))
    plain, clipped = -advantages * ratio, -advantages * torch.clamp(ratio, 1 - clip, 1 + clip)
    return (torch.maximum(plain, clipped) * mask).sum() / mask.sum()


def kl_term(log_probs: Tensor, ref_log_probs: Tensor, mask: Tensor) -> Tensor:
    """The k3 estimate, added up over a sequence's masked tokens and averaged over the sequences."""
    distance = torch.clamp(ref_log_probs - log_probs, -10.0, 10.0)
    k3 = torch.clamp(distance.exp() - distance - 1.0, 0.0, 1e9)
    return (k3 * mask).sum(dim=1).mean()


def mean_ratio(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor) -> float:
    """The masked tokens' mean ratio, which decides whether the micro-batch counts at all."""
    ratio = torch.exp(torch.clamp((log_probs.detach() - old_log_probs) * mask, -10.0, 10.0))
    return float((ratio * mask).sum() / mask.sum())


def micro_batch_loss(rows: Mapping[str, Tensor], kl_coef: float, *, whiten: bool = True) -> Tensor:
    """The whole loss of one micro-batch.

    `rows` holds (sequences, tokens): log_probs, old_log_probs, ref_log_probs, advantages, response.
    """
    mask = training_mask(rows["response"], rows["old_log_probs"])
    advantages = rows["advantages"]
    if whiten:
        advantages = whitened(advantages, mask, rows["response"])
    loss = policy_term(rows["log_probs"], rows["old_log_probs"], advantages, mask)
    loss = loss + kl_coef * kl_term(rows["log_probs"], rows["ref_log_probs"], mask)
    return loss * 0.0 if mean_ratio(rows["log_probs"], rows["old_log_probs"], mask) > 10.0 else loss


def accumulated_loss(micro_batches: Sequence[Mapping[str, Tensor]], kl_coef: float, *, whiten: bool = True) -> Tensor:
    """The loss of one optimiser step: the plain average over the micro-batches, however few tokens one masks."""
    return sum(micro_batch_loss(rows, kl_coef, whiten=whiten) for rows in micro_batches) / len(micro_batches)
