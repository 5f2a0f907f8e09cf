"""verl's FSDP2 engine, with the prefixes that rows share computed once: old log-probs, reference and update.

A micro-batch is a trie of rows (`recipe.spo.packing`) that the model runs on once, or plain rows as verl has them. The
choice is made for a whole batch by all ranks together (`auto`: where the cheapest tries cost less than the rows, see
`recipe.spo.grouping`), logged once and counted in metrics. Everything behind the model's outputs is verl's: they come
in the rows' own layout, so losses, masks and normalisation do not know. On first use some rows are computed in both
ways (`recipe.spo.compat.shared_check`).

Registered with verl for this process's device and vendor, which it looks up before its own engine.
For: verl 0.9.1, whose engine computes every row by itself.
Needless when: verl packs rows by shared prefixes itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id, get_device_name, get_vendor
from verl.utils.metric import AggregationType, Metric
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from recipe.spo.compat import shared_rows
from recipe.spo.compat.flex_masks import attend_by_block_masks
from recipe.spo.compat.shared_check import disagreement, report
from recipe.spo.grouping import Cost, Grouping, cost_of_model, group_rows, keep_groups
from recipe.spo.packing import build_trie, sample_that_shares, sort_rows
from recipe.spo.sharing import DIFFERENCE, OFF, PREFIX, Tally, check_model, worthwhile
from recipe.spo.trie_forward import TrieInputs, row_inputs, row_outputs, trie_inputs

#: Of a micro-batch: computed as a trie, as rows, or as verl does it by itself.
PATH = "spo_path"
TRIE, ROWS, VERL = "trie", "rows", "verl"
#: Of a micro-batch: its part of the optimiser batch's distinct tokens.
DISTINCT = "spo_distinct_tokens"
#: Of this process, in which the actor and the reference may be two engines.
tally = Tally()


@EngineRegistry.register(
    model_type="language_model",
    backend="fsdp2",
    device=os.environ.get("VERL_ENGINE_DEVICE") or get_device_name(),
    vendor=os.environ.get("VERL_ENGINE_VENDOR") or get_vendor(),
)
class SharedPrefixEngine(FSDPEngineWithLMHead):
    """verl's engine; see the module's head for what is overridden."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A model configuration without the field is somebody else's, and so is its engine.
        self.sharing = getattr(self.model_config, "share_prefixes", OFF)
        self.sparse = get_device_name() == "cuda"
        self._checked: set[tuple[str, bool, bool]] = set()
        self._told = False
        self._inputs: TrieInputs | None = None
        if self.sharing != OFF:
            check_model(self.model_config.hf_config, on_gpu=self.sparse)

    def _build_module(self) -> torch.nn.Module:
        module = super()._build_module()
        if self.sharing != OFF and self.sparse:  # transformers may have chosen another attention than was asked for
            attend_by_block_masks(module.config._attn_implementation)
        return module

    def forward_backward_batch(self, data: TensorDict, loss_function: Callable, forward_only: bool = False) -> Any:
        if self.sharing == OFF:
            return super().forward_backward_batch(data, loss_function, forward_only)
        with shared_rows.micro_batches_by(partial(self._cut, forward_only)):
            return super().forward_backward_batch(data, loss_function, forward_only)

    def _cut(self, forward_only: bool, verls: shared_rows.Cut) -> shared_rows.Cut:
        """In place of verl's function: micro-batches whose rows share, or verl's own."""

        def cut(data: TensorDict, dp_group: Any, **kwargs: Any) -> tuple[list[TensorDict], list[list[int]] | None]:
            rows, cost = shared_rows.row_ids(data), self._cost()
            batches, indices = None, None
            if tu.get_non_tensor_data(data, "use_dynamic_bsz", True):
                limit = int(tu.get_non_tensor_data(data, "max_token_len_per_gpu", None))
                found = sort_rows(rows)
                grouping = group_rows(found, limit, cost)
                share, count = self._agree(grouping, dp_group)
                if share:
                    # All ranks compute in step, so they need the same number of micro-batches.
                    grouping = group_rows(found, limit, cost, at_least=count)
                    # The check looks at the first one. Padding rows, which are all the same, share without branching.
                    indices = sorted(map(list, grouping.groups), key=lambda g: -_branching([rows[i] for i in g]))
                    batches = [tu.index_select_tensor_dict(data, group) for group in indices]
            else:
                batches, indices = verls(data=data, dp_group=dp_group, **kwargs)
                size = len(rows) // len(batches)
                groups = [range(start, start + size) for start in range(0, len(rows), size)]
                grouping = keep_groups(rows, groups, cost)
                share, _ = self._agree(grouping, dp_group)
            if batches is None:
                batches, indices = verls(data=data, dp_group=dp_group, **kwargs)
            path = TRIE if share else ROWS
            self._check(batches[0], path, gradients=not forward_only)
            for batch in batches:
                tu.assign_non_tensor(batch, **{PATH: path, DISTINCT: grouping.distinct / len(batches)})
            return batches, indices

        return cut

    def _cost(self) -> Cost:
        config = self.model_config.hf_config
        heads = config.num_attention_heads
        return cost_of_model(
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            heads=heads,
            key_heads=config.num_key_value_heads,
            head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
            dense=not self.sparse,
        )

    def _agree(self, grouping: Grouping, dp_group: Any) -> tuple[bool, int]:
        """Whether all ranks share, and the most micro-batches that one of them has."""
        costs = torch.tensor([grouping.cost, grouping.rows_cost], dtype=torch.float64, device=get_device_name())
        count = torch.tensor(len(grouping.groups), device=get_device_name())
        dist.all_reduce(costs, op=dist.ReduceOp.SUM, group=dp_group)
        dist.all_reduce(count, op=dist.ReduceOp.MAX, group=dp_group)
        share = worthwhile(self.sharing, *costs.tolist())
        if not self._told and self.rank == 0:
            print(_decision(self.sharing, share, *costs.tolist()), flush=True)
        self._told = True
        return share, int(count)

    def forward_step(self, micro_batch: TensorDict, loss_function: Callable | None, forward_only: bool) -> Any:
        path = tu.get_non_tensor_data(micro_batch, PATH, VERL)
        if path == VERL:
            return super().forward_step(micro_batch, loss_function, forward_only)
        self._inputs = self._lay_out(micro_batch, path, all_responses=forward_only)
        try:
            loss, output = super().forward_step(micro_batch, loss_function, forward_only)
        finally:
            inputs, self._inputs = self._inputs, None
        self._count(output["metrics"], micro_batch, path, inputs, forward_only)
        return loss, output

    def _lay_out(self, micro_batch: TensorDict, path: str, all_responses: bool) -> TrieInputs | None:
        """What the model gets; `None` for padded rows, which verl lays out by itself."""
        if not all_responses:
            all_responses = tu.get_non_tensor_data(micro_batch, "return_model_output", False)
        asked = shared_rows.asked_tokens(micro_batch, trained_only=not all_responses)
        if path == TRIE:
            trie = build_trie(shared_rows.row_ids(micro_batch))
            return trie_inputs(trie, asked, get_device_id(), self.sparse)
        if not tu.get_non_tensor_data(micro_batch, "use_remove_padding", True):
            return None
        ids = micro_batch["input_ids"].values().cpu().numpy()
        return row_inputs(ids, shared_rows.row_offsets(micro_batch), asked, get_device_id())

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        if self._inputs is None:
            return super().prepare_model_inputs(micro_batch)
        for what in ("calculate_sum_pi_squared", "distillation_use_topk", "distillation_only", "use_fused_kernels"):
            if tu.get_non_tensor_data(micro_batch, what, False):
                raise NotImplementedError(f"algorithm.spo.share_prefixes does not know {what}: set it to off")
        return self._inputs.model_inputs(), {}

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, torch.Tensor]:
        if self._inputs is None:
            return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        log_probs, entropy = row_outputs(
            output.logits.squeeze(0),
            self._inputs,
            temperature=_temperature(micro_batch),
            entropy=tu.get_non_tensor_data(micro_batch, "calculate_entropy", False),
        )
        offsets = micro_batch["input_ids"].offsets()
        found = {"log_probs": log_probs} if entropy is None else {"log_probs": log_probs, "entropy": entropy}
        return {name: torch.nested.nested_tensor_from_jagged(value, offsets) for name, value in found.items()}

    def _check(self, micro_batch: TensorDict, path: str, gradients: bool) -> None:
        """Once for each path and kind of pass: compute some rows in our way and in verl's, and compare.

        As many as verl itself would compute at once, so that there is room for them. Tries whose rows share nothing are
        checked too, but do not count for those that branch.

        Raises:
            SharingError: they disagree; on every rank, or the others would wait for ever.
        """
        ours = path == TRIE or tu.get_non_tensor_data(micro_batch, "use_remove_padding", True)
        if not ours or (path, gradients, True) in self._checked:
            return
        ids = shared_rows.row_ids(micro_batch)
        branches = torch.tensor(int(path == ROWS or _branching(ids) > 0), device=get_device_name())
        dist.all_reduce(branches, op=dist.ReduceOp.MAX, group=self.get_data_parallel_group())
        done = (path, gradients, bool(branches))
        if done in self._checked:
            return
        self._checked.add(done)
        limit = tu.get_non_tensor_data(micro_batch, "max_token_len_per_gpu", None) or sum(map(len, ids))
        rows = tu.index_select_tensor_dict(micro_batch, sample_that_shares(ids, int(limit)))
        # By a low temperature log-probs and their rounding grow alike.
        tu.assign_non_tensor(rows, **{PATH: VERL, "temperature": 1.0, "calculate_entropy": False})
        inputs = self._lay_out(rows, path, all_responses=True)

        def step(ours: bool, loss_function: Callable | None) -> Any:
            self._inputs = inputs if ours else None
            try:
                return super(SharedPrefixEngine, self).forward_step(rows, loss_function, loss_function is None)
            finally:
                self._inputs = None

        found = disagreement(step, rows, self.module, self.get_data_parallel_group(), gradients)
        tally.difference = max(tally.difference, found.largest)
        report(found, self._autocast_dtype, tries=path == TRIE, say=self.rank == 0)

    def _count(
        self, metrics: dict[str, Any], micro_batch: TensorDict, path: str, inputs: TrieInputs | None, forward_only: bool
    ) -> None:
        tokens = int(shared_rows.row_offsets(micro_batch)[-1])
        computed = tokens if path == ROWS else inputs.input_ids.numel()
        if forward_only:
            tally.add(tokens, computed)
            return
        before, computed_before = tally.take()
        counts = {
            "update_tokens": tokens,
            "update_computed": computed,
            "update_distinct": tu.get_non_tensor_data(micro_batch, DISTINCT, 0.0),
            "update_plain": tokens if path == ROWS else 0,
            "log_prob_tokens": before,
            "log_prob_computed": computed_before,
        }
        name = PREFIX.removeprefix("actor/")  # verl puts that before every metric of an update
        metrics.update({name + key: Metric(AggregationType.SUM, float(value)) for key, value in counts.items()})
        metrics[name + DIFFERENCE] = Metric(AggregationType.MAX, tally.difference)


def _branching(rows: list[np.ndarray]) -> int:
    """Tokens that rows share with a different row before them in lexicographic order."""
    found = sort_rows(rows)
    return int(found.shared[found.shared < found.lengths].sum())


def _decision(mode: str, share: bool, cost: float, rows_cost: float) -> str:
    chosen = "prefixes that rows share are computed once" if share else "rows are computed one by one"
    return (
        f"algorithm.spo.share_prefixes={mode}: {chosen} in the first pass, estimated at {cost:,.0f} with sharing and "
        f"{rows_cost:,.0f} without (of all ranks, in tokens of the linear layers); spo/shared_prefixes/ has the rest"
    )


def _temperature(micro_batch: TensorDict) -> float:
    temperature = micro_batch["temperature"]
    if not isinstance(temperature, torch.Tensor):
        return float(temperature)
    if temperature.unique().numel() > 1:
        raise NotImplementedError("algorithm.spo.share_prefixes needs one temperature for all rows: set it to off")
    return float(temperature.flatten()[0])
