"""Runs under torchrun, with a model's folder and overrides: rows and their trie through verl's real FSDP2 engine.

In one process, one engine a setting of `share_prefixes`, each with the same weights and batch, cut up in several ways.
Prints, on rank 0, a JSON list: what was run, the largest difference from verl's own path (relative, in norm) of
log-probs, entropies, loss and each parameter's gradient, and the metrics.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from omegaconf import OmegaConf
from tensordict import NonTensorData, TensorDict

from benchmarks.verl_actor import actor_worker
from tests.integration.engine_child import batch, with_padding
from tests.integration.torchrun import composed

#: The cheapest micro-batches, or so many rows each.
CUTS = [{"max_token_len_per_gpu": 1000}, {"micro_batch_size_per_gpu": 6}, {"micro_batch_size_per_gpu": 2}]
CHEAPEST = CUTS[0]


def rows(vocabulary: int, share: bool = True) -> list[dict]:
    """Segments of two trees, of different masks; a row twice, and one that is the beginning of others.

    Without `share`, rows of the same lengths that have nothing in common.
    """
    from recipe.spo.rollout.worker import row_fields
    from recipe.spo.rows import Row

    random = torch.Generator().manual_seed(0)

    def draw(count: int) -> list[int]:
        return torch.randint(3, vocabulary, (count,), generator=random).tolist()

    made = []
    for _ in range(2):
        prompt = draw(12)
        first = [draw(9) for _ in range(3)]
        for segment in first:
            made.append((prompt, segment))
            made += [(prompt + segment, draw(7)) for _ in range(2)]
    made += [made[1], (made[0][0][:5], made[0][0][5:])]
    fields = []
    for number, (context, response) in enumerate(made):
        if not share:
            context = [3 + number, *draw(len(context) - 1)]
        mask = (torch.rand(len(response), generator=random) < 0.6).int().tolist()
        mask[0] = 1
        log_probs = (-3 * torch.rand(len(response), generator=random)).tolist()
        advantage = float(torch.randn((), generator=random))
        fields.append(row_fields(Row((0,), context, response, mask, [advantage * m for m in mask], log_probs, 0.5)))
    return fields


def build(config: Any, mode: str) -> Any:
    """An actor of verl with one setting of `share_prefixes`."""
    from verl.utils.config import omega_conf_to_dataclass

    config = config.copy()
    if mode != "off":
        from recipe.spo.compat.shared_model import share_prefixes

        share_prefixes(config, mode)
    OmegaConf.resolve(config)
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    return actor_worker(config, actor)


def measure(worker: Any, data: TensorDict, cut: dict[str, int]) -> dict[str, Any]:
    """Log-prob pass, gradients, and an update with a learning rate of zero."""
    from verl.utils import tensordict_utils as tu

    def prepared() -> TensorDict:
        mine = data.copy()
        tu.assign_non_tensor(
            mine,
            global_batch_size=len(data) * torch.distributed.get_world_size(),
            temperature=0.6,
            use_dynamic_bsz="max_token_len_per_gpu" in cut,
            global_token_num=NonTensorData([1]),
            calculate_entropy=True,
            **cut,
        )
        return mine

    inferred = prepared()
    tu.assign_non_tensor(inferred, compute_loss=False)
    output = worker.infer_batch(inferred)
    found = {name: output[name].values() for name in ("log_probs", "entropy")}
    responses = data["response_mask"].offsets().diff()
    ends = data["input_ids"].offsets()[1:]
    places = torch.cat([torch.arange(e - n - 1, e - 1) for e, n in zip(ends, responses, strict=True)])
    found = {name: values[places] for name, values in found.items()}

    engine = worker.engine
    with engine.train_mode(disable_auto_offload=True, zero_grad_on_exit=False):
        engine.optimizer_zero_grad()
        given = prepared()
        tu.assign_non_tensor(given, use_remove_padding=worker.model_config.use_remove_padding, use_fused_kernels=False)
        losses = engine.forward_backward_batch(given, worker.loss_fn)["loss"]
        for name, parameter in engine.module.named_parameters():
            if parameter.grad is not None:
                grad = parameter.grad
                found[name] = (grad.full_tensor() if hasattr(grad, "full_tensor") else grad).detach().clone()
        engine.optimizer_zero_grad()
    metrics = tu.get(worker.train_batch(prepared()), "metrics")
    found["loss"] = torch.tensor([metrics["loss"]])
    found["grad_norm"] = torch.tensor([metrics["grad_norm"]])
    found["metrics"] = {
        name: sum(v for part in value for v in part.values) if "check" not in name else value[0].values[0]
        for name, value in metrics.items()
        if name.startswith("spo_share_")
    }
    found["micro_batches"] = len(losses)
    return found


@contextlib.contextmanager
def heads_of(worker: Any) -> Iterator[list[tuple[int, int]]]:
    """Of each micro-batch of an update: at how many tokens the head was computed, and at how many it has to be.

    What has to be, by brute force: in a trie the distinct beginnings of rows that a trained token follows, in packed
    rows each such token; at least one.
    """
    engine, found = worker.engine, []
    lay_out = engine._lay_out

    def counted(micro_batch: TensorDict, path: str, all_responses: bool) -> Any:
        inputs = lay_out(micro_batch, path, all_responses)
        if inputs is not None and not all_responses:
            before = []
            fields = (micro_batch[name].unbind() for name in ("input_ids", "response_mask"))
            for ids, mask in zip(*fields, strict=True):
                ids, start = ids.tolist(), len(ids) - len(mask)
                before += [tuple(ids[: start + place]) for place in mask.nonzero().flatten().tolist()]
            found.append((len(inputs.keep), max(1, len(set(before) if path == "trie" else before))))
        return inputs

    with mock.patch.object(engine, "_lay_out", counted):
        yield found


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """Norm of the difference over the norm; of gradients, at least a hundred-thousandth of that of all."""
    gradients = [name for name in theirs if "weight" in name or "bias" in name]
    total = torch.stack([theirs[name].norm() for name in gradients]).norm()
    found = {}
    for name, value in theirs.items():
        if isinstance(value, torch.Tensor):
            floor = 1e-5 * total if name in gradients else 0.0
            found[name] = float((ours[name] - value).norm() / max(value.norm(), floor))
    return found


def refusal(worker: Any, data: TensorDict, place: Any, name: str, wrong: Any) -> str:
    """What an engine says of which a part is replaced by a wrong one."""
    from recipe.spo.sharing import SharingError

    with mock.patch.object(place, name, wrong):
        try:
            measure(worker, data, CHEAPEST)
        except SharingError as error:
            return str(error)
    return ""


def refusals(config: Any, data: TensorDict, apart: TensorDict) -> dict[str, str]:
    """Of a mask that hides nothing, a gradient twice as large, and packed rows that see each other."""
    from recipe.spo import trie_forward
    from recipe.spo.compat import shared_engine

    mask, backward, rows_of = trie_forward.ancestor_mask, trie_forward._HeadOutputs.backward, shared_engine.row_inputs

    def all_seen(subtree_end: torch.Tensor) -> torch.Tensor:
        return mask(torch.full_like(subtree_end, len(subtree_end)))

    def doubled(*arguments: Any) -> Any:
        grad, *none = backward(*arguments)
        return (2 * grad, *none)

    def one_row(ids: Any, offsets: Any, *rest: Any) -> Any:
        return rows_of(ids, offsets[[0, -1]], *rest)

    said = {
        "mask": refusal(build(config, "on"), data, trie_forward, "ancestor_mask", all_seen),
        "gradient": refusal(build(config, "on"), data, trie_forward._HeadOutputs, "backward", staticmethod(doubled)),
    }
    if config.actor_rollout_ref.model.use_remove_padding:
        said["rows"] = refusal(build(config, "auto"), apart, shared_engine, "row_inputs", one_row)
    return said


def main(model: str, *overrides: str) -> None:
    config = composed(model, "actor_rollout_ref.actor.entropy_coeff=0.01", *overrides)
    from verl.utils import tensordict_utils as tu

    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    # The first one before our engine is registered: it is verl's.
    workers = {mode: build(config, mode) for mode in ("off", "on", "auto")}
    names = {mode: type(worker.engine).__name__ for mode, worker in workers.items()}
    assert names == {"off": "FSDPEngineWithLMHead", "on": "SharedPrefixEngine", "auto": "SharedPrefixEngine"}, names
    made = rows(workers["off"].model_config.hf_config.vocab_size)
    data = batch(with_padding(made, total=24, eos=1))
    mine = tu.chunk_tensordict(data, ranks)[rank]
    apart = batch(rows(workers["off"].model_config.hf_config.vocab_size, share=False))
    apart = tu.chunk_tensordict(apart, ranks)[rank]
    results = []
    for mode in ("on", "auto"):
        with heads_of(workers[mode]) as heads:
            found = measure(workers[mode], apart, CHEAPEST)
        compared = differences(found, measure(workers["off"], apart, CHEAPEST))
        results.append({"mode": mode, "apart": compared, "metrics": found["metrics"], "heads": heads})
    for cut in CUTS:
        reference = measure(workers["off"], mine, cut)
        for mode in ("on", "auto"):
            with heads_of(workers[mode]) as heads:
                found = measure(workers[mode], mine, cut)
            results.append(
                {
                    "mode": mode,
                    **cut,
                    "differences": differences(found, reference),
                    "loss": float(reference["loss"]),
                    "metrics": found["metrics"],
                    "heads": heads,
                    "verls_metrics": reference["metrics"],
                    "micro_batches": [found["micro_batches"], reference["micro_batches"]],
                }
            )
    results.append({"refused": refusals(config, mine, apart)})
    if rank == 0:
        print("RESULT " + json.dumps(results), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
