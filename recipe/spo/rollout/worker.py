"""The rollout worker: grow, grade, value, credit, select, write rows. One coroutine a prompt.

A subclass of verl's TransferQueue agent-loop worker. Validation prompts go verl's own way, plain
single-turn sampling. A training prompt becomes one tree or chain and as many rows as have signal:
verl's stock worker would copy the last response's reward over all others, so rows are written here.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import ray
import torch
import transfer_queue as tq
from tensordict import TensorDict
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ
from verl.utils.tensordict_utils import list_of_dict_to_tensordict
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from recipe.spo.advantage import Sample, chain_samples, tree_samples
from recipe.spo.chain import ChainRollout
from recipe.spo.compat.llm_client import TreeClient
from recipe.spo.compat.ray_actors import plain_class
from recipe.spo.credit import chain_rule, tree_rule
from recipe.spo.cutting import cutting_rule
from recipe.spo.metrics import chain_counts, selection_counts, tree_counts
from recipe.spo.parsing import settings_of
from recipe.spo.recorder import choose, recorder_of
from recipe.spo.rollout.chain import grow_chain
from recipe.spo.rollout.ending import at_texts, eos_token_ids
from recipe.spo.rollout.queue import CONTENT_TAG, COUNTS_TAG, ERROR_TAG, PATH_TAG, QUESTION_TAG
from recipe.spo.rollout.sampler import Sampler, derived_seed
from recipe.spo.rollout.tree import grow_tree
from recipe.spo.rows import Row, select_rows
from recipe.spo.tree import Node, compute_values, endings

#: Column of a training prompt that says whether it is dumped.
DUMP_COLUMN = "spo_dump"
#: Dataset columns that a row keeps; the rest would be copied to every worker with each row.
KEPT_COLUMNS = ("uid", "session_id", "global_steps", "data_source", "reward_model")


class SPOAgentLoopWorker(plain_class(AgentLoopWorkerTQ)):
    """verl's agent-loop worker, with trees and chains for training prompts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.response_length = int(self.rollout_config.response_length)
        self.settings = settings_of(self.config, self.response_length)
        self.prompt_builder = create_continuous_token_builder(
            self.tokenizer,
            hf_model_type=self.hf_model_type,
            chat_template_kwargs=self.config.data.get("apply_chat_template_kwargs", {}),
            mm_processor_kwargs=self.mm_processor_kwargs,
            processor=self.processor,
        )
        # With ignore_eos (benchmarks) the engine samples EOS like any token and goes on.
        self.eos_ids = (
            frozenset()
            if self.rollout_config.ignore_eos
            else eos_token_ids(self.tokenizer, self.model_config.generation_config)
        )
        # As vLLM and verl's reward workers decode.
        self.end_rule = at_texts(self.settings.stop, partial(self.tokenizer.decode, skip_special_tokens=True))
        self.recorder = recorder_of(self.settings, self.tokenizer.decode)
        # Once a worker: what it learns about tokens serves every prompt.
        self.cutting = cutting_rule(self.settings, self.tokenizer.decode)

    async def _run_agent_loop(
        self,
        sampling_params: dict[str, Any],
        trajectory: dict[str, Any],
        *,
        agent_name: str,
        trace: bool = True,
        **prompt: Any,
    ) -> None:
        if self.settings.stop:
            sampling_params = {**sampling_params, "stop": list(self.settings.stop)}
        if trajectory["validate"]:
            if self.settings.context_schedule is not None:
                used = len(self._prompt_ids(prompt["raw_prompt"]))
                sampling_params = {**sampling_params, "max_tokens": self._budget(prompt, used)}
            return await super()._run_agent_loop(
                sampling_params, trajectory, agent_name=agent_name, trace=trace, **prompt
            )
        try:
            await self._roll_out(sampling_params, prompt)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            await tq.async_kv_put(key=prompt["uid"], partition_id="train", tag={ERROR_TAG: reason})
            raise

    async def _roll_out(self, sampling_params: dict[str, Any], prompt: dict[str, Any]) -> None:
        """Roll out one training prompt and write its rows and counts."""
        started = time.monotonic()
        chosen = bool(prompt.pop(DUMP_COLUMN, False))
        prompt_ids = self._prompt_ids(prompt["raw_prompt"])
        rollout_id = uuid.uuid4().hex
        async with TreeClient(self.llm_client, rollout_id, prompt_ids) as client:
            sampler = Sampler(
                client=client,
                request_id=rollout_id,
                sampling_params=sampling_params,
                eos_ids=self.eos_ids,
                seed=self._rollout_seed(prompt),
                prompt_length=len(prompt_ids),
                end_rule=self.end_rule,
            )
            rollout = await self._grow(sampler, prompt_ids, prompt)
        await self._grade(rollout, prompt_ids, prompt)
        samples, counts = self._credit(rollout)
        selection = select_rows(
            prompt_ids,
            samples,
            mask_threshold=self.settings.rollout_mask_threshold,
            keep_all=self.settings.keep_zero_advantage or self.settings.method == "ppo",
        )
        counts |= selection_counts(selection)
        counts["prompt_tokens"] = sampler.prompt_tokens
        counts["cached_tokens"] = sampler.cached_tokens
        counts["rollout_seconds"] = time.monotonic() - started
        if self.recorder is not None:
            counts |= self.recorder.record(prompt, prompt_ids, rollout, samples, selection, chosen)
        if selection.rows:
            await self._write_rows(selection.rows, sampler, prompt, prompt_ids)
        await tq.async_kv_put(key=prompt["uid"], partition_id="train", tag={COUNTS_TAG: counts})

    async def _grow(self, sampler: Sampler, prompt_ids: list[int], prompt: Mapping[str, Any]) -> Node | ChainRollout:
        """Sample a tree or a chain, ungraded."""
        settings, budget = self.settings, self._budget(prompt, len(prompt_ids))
        if settings.chain is not None:
            return await grow_chain(sampler, prompt_ids, settings.chain, self.cutting, budget)
        shape = settings.tree_at(int(prompt["global_steps"]))
        return await grow_tree(sampler, prompt_ids, shape, budget, self.cutting)

    def _budget(self, prompt: Mapping[str, Any], prompt_tokens: int) -> int:
        """Most tokens of the response, in the stage of the step that verl sent the prompt with."""
        return self.settings.response_budget(int(prompt["global_steps"]), prompt_tokens, self.response_length)

    def _credit(self, rollout: Node | ChainRollout) -> tuple[list[Sample], dict[str, float]]:
        """Values, advantages, and the rollout's counts."""
        settings = self.settings
        if isinstance(rollout, ChainRollout):
            return list(chain_samples(rollout, chain_rule(settings.credit))), chain_counts(rollout)
        compute_values(rollout)
        # PPO's advantages come from its critic, in the trainer.
        rule = no_credit if settings.credit is None else tree_rule(settings.credit, settings.shrinkage)
        return list(tree_samples(rollout, rule)), tree_counts(rollout, settings.tree_shape.depth)

    def _prompt_ids(self, messages: Any) -> list[int]:
        """Render the chat template, as verl's single-turn loop does for validation.

        Raises:
            ValueError: the prompt is longer than `data.max_prompt_length`.
        """
        prompt_ids = list(self.prompt_builder.build_initial_tokens(list(messages)))
        limit = self.rollout_config.prompt_length
        if len(prompt_ids) > limit:
            raise ValueError(f"prompt of {len(prompt_ids)} tokens is longer than data.max_prompt_length={limit}")
        return prompt_ids

    def _rollout_seed(self, prompt: Mapping[str, Any]) -> int | None:
        if not self.settings.deterministic:
            return None
        return derived_seed(self.rollout_config.seed, prompt["global_steps"], prompt["raw_prompt"])

    async def _grade(self, rollout: Node | ChainRollout, prompt_ids: list[int], prompt: dict[str, Any]) -> None:
        """Grade every response at once in verl's reward workers; equal responses are graded once.

        The response is graded, never the prompt; an unfinished one earns `unfinished_reward`.
        """
        finished: dict[tuple[int, ...], list[Node]] = {}
        for response_ids, node in rollout.endings() if isinstance(rollout, ChainRollout) else endings(rollout):
            if node.finished:
                finished.setdefault(response_ids, []).append(node)
            else:
                node.reward, node.verdict = self.settings.unfinished_reward, "unfinished"
        rewards = await asyncio.gather(*(self._reward(prompt_ids, ids, prompt) for ids in finished))
        for nodes, (reward, verdict) in zip(finished.values(), rewards, strict=True):
            for node in nodes:
                node.reward, node.verdict = reward, verdict

    async def _reward(
        self, prompt_ids: list[int], response_ids: Sequence[int], prompt: dict[str, Any]
    ) -> tuple[float, str]:
        output = AgentLoopOutput(
            prompt_ids=prompt_ids,
            response_ids=list(response_ids),
            response_mask=[1] * len(response_ids),
            num_turns=2,
            metrics=AgentLoopMetrics(),
        )
        await self._compute_score([output], kwargs=prompt)
        if output.reward_score is None:
            raise RuntimeError("verl's reward workers returned no score: SPO needs rule-based rewards while sampling")
        if not math.isfinite(output.reward_score):
            raise RuntimeError(f"the reward function gave {output.reward_score}: a reward must be a finite number")
        # A user's own reward function need not give a reason.
        return float(output.reward_score), str(output.extra_fields["reward_extra_info"].get("reason", ""))

    async def _compute_score(self, outputs: list[AgentLoopOutput], kwargs: dict[str, Any]) -> None:
        """Tell the grader whether the response ended by itself (in validation too, one that did not earns 0), and what
        texts may have ended it."""
        response_ids, budget = outputs[-1].response_ids, self._budget(kwargs, len(outputs[-1].prompt_ids))
        # As the sampler sees it: EOS, fewer tokens than there was room for, or a text that ends it.
        finished = len(response_ids) < budget or response_ids[-1] in self.eos_ids
        finished = finished or (self.end_rule is not None and self.end_rule(response_ids) is not None)
        extra_info = {**(kwargs.get("extra_info") or {}), "finished": finished}
        if self.settings.stop:
            extra_info["stop"] = list(self.settings.stop)
        await super()._compute_score(outputs, {**kwargs, "extra_info": extra_info})

    async def _write_rows(
        self, rows: Sequence[Row], sampler: Sampler, prompt: Mapping[str, Any], prompt_ids: Sequence[int]
    ) -> None:
        uid, session = prompt["uid"], prompt["session_id"]
        kept = {name: prompt[name] for name in KEPT_COLUMNS if name in prompt}
        keys = [f"{uid}_{session}_{index}" for index in range(len(rows))]
        # Not the data set's index, which is 0 throughout where a file has none.
        question = digest(prompt_ids)
        tags = [
            {
                "status": "success",
                QUESTION_TAG: question,
                PATH_TAG: ".".join(map(str, row.path)),
                CONTENT_TAG: digest([*row.prompt_ids, *row.response_ids]),
                "prompt_len": len(row.prompt_ids),
                "response_len": len(row.response_ids),
                "seq_len": len(row.prompt_ids) + len(row.response_ids),
                "global_steps": prompt["global_steps"],
                "min_global_steps": sampler.min_global_steps,
                "max_global_steps": sampler.max_global_steps,
            }
            for row in rows
        ]
        await tq.async_kv_batch_put(
            keys=keys,
            fields=list_of_dict_to_tensordict([{**row_fields(row), **kept} for row in rows]),
            tags=tags,
            partition_id="train",
        )


def digest(token_ids: Sequence[int]) -> str:
    """A short name for tokens, the same in every process and run."""
    return hashlib.sha256(str(list(token_ids)).encode()).hexdigest()[:16]


def no_credit(path: Sequence[Node]) -> float:
    """For rows whose advantages are made elsewhere."""
    return 0.0


def row_fields(row: Row) -> dict[str, Any]:
    """A row as verl's TransferQueue fields; `loss_mask` is what verl's engine counts to normalise."""
    prompts = torch.tensor(row.prompt_ids, dtype=torch.int64)
    responses = torch.tensor(row.response_ids, dtype=torch.int64)
    mask = torch.tensor(row.response_mask, dtype=torch.int64)
    rm_scores = torch.zeros(len(row.response_ids), dtype=torch.float32)
    rm_scores[-1] = row.score
    input_ids = torch.cat([prompts, responses])
    return {
        "prompts": prompts,
        "responses": responses,
        "input_ids": input_ids,
        "position_ids": torch.arange(len(input_ids)),
        "response_mask": mask,
        "loss_mask": mask.clone(),
        "rollout_log_probs": torch.tensor(row.log_probs, dtype=torch.float32),
        "spo_advantages": torch.tensor(row.advantages, dtype=torch.float32),
        "rm_scores": rm_scores,
        "num_turns": 2,
        "multi_modal_inputs": {},
    }


class SPOAgentLoopManager(AgentLoopManagerTQ):
    """verl's agent-loop manager, with SPO's workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(SPOAgentLoopWorker)
        self.settings = settings_of(self.config, int(self.config.data.max_response_length))

    def generate_sequences(self, prompts: TensorDict) -> None:
        """Send the prompts to the workers; here the whole step is known, so that some can be chosen for the dump."""
        if self.settings.dump_dir and not ("validate" in prompts and prompts["validate"]):
            step = int(prompts["global_steps"])
            chosen = choose(step, len(prompts), self.settings.dump_sample, int(self.config.data.seed))
            prompts[DUMP_COLUMN] = torch.tensor(chosen)
        super().generate_sequences(prompts)
