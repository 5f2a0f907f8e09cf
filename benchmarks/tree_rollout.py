"""Tokens a second of a tree rollout: our worker against vLLM's own async engine, same requests.

    python -m benchmarks.tree_rollout --model <folder>        (make bench-tree-rollout MODEL=<folder>)

Ours is the whole path of training: verl's agent-loop manager, SPO's worker, the load balancer, the
rollout server, rows in TransferQueue. The other side is vLLM's `AsyncLLM` in one process, one request
a node with n = branch factor. EOS is ignored, so both sides generate exactly the same numbers of
tokens from the same prompts. The last line is `ratio: N.NN`, ours over vLLM's, larger is better.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np

BRANCH_FACTORS, SEGMENT_LENGTH, LAST_LENGTH = (6, 6, 6), 30, 64
PROMPT_LENGTH, RESPONSE_LENGTH = 256, 2 * SEGMENT_LENGTH + LAST_LENGTH


@dataclass(frozen=True, slots=True)
class Measured:
    """One side of one round."""

    tokens: int
    seconds: float
    cache_hit_rate: float

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


def questions(count: int, seed: int) -> list[list[dict[str, str]]]:
    """Generated word problems as chats."""
    from data_prep.arithmetic import generate

    problems = generate({"train": count}, min_steps=4, max_steps=6, max_number=20, seed=seed)["train"]
    return [[{"role": "user", "content": problem.question}] for problem in problems]


def compose(model: str) -> Any:
    """The training configuration, with a rollout server of its own and without a trainer."""
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    with initialize_config_module("recipe.spo.config", version_base=None):
        config = compose(
            "spo_trainer",
            overrides=[
                f"actor_rollout_ref.model.path={model}",
                f"data.max_prompt_length={PROMPT_LENGTH}",
                f"data.max_response_length={RESPONSE_LENGTH}",
                f"algorithm.spo.tree.branch_factors={list(BRANCH_FACTORS)}",
                f"algorithm.spo.tree.segment_length={SEGMENT_LENGTH}",
                "actor_rollout_ref.rollout.dtype=bfloat16",
                "actor_rollout_ref.rollout.ignore_eos=True",
                "actor_rollout_ref.rollout.temperature=1.0",
                "actor_rollout_ref.rollout.load_format=auto",
                "actor_rollout_ref.rollout.nnodes=1",
                "actor_rollout_ref.rollout.n_gpus_per_node=1",
                f"actor_rollout_ref.rollout.max_model_len={PROMPT_LENGTH + RESPONSE_LENGTH}",
                "transfer_queue.enable=True",
            ],
        )
    OmegaConf.resolve(config)
    return config


class Ours:
    """SPO's worker behind verl's manager, client and server."""

    def __init__(self, config: Any) -> None:
        import transfer_queue as tq
        from verl.experimental.reward_loop import RewardLoopManager
        from verl.workers.rollout.llm_server import LLMServerManager

        from recipe.spo.rollout.worker import SPOAgentLoopManager

        tq.init(config.transfer_queue)
        self.servers = LLMServerManager.create(config=config)
        rewards = RewardLoopManager(config=config, rm_resource_pool=None)
        self.manager = SPOAgentLoopManager.create(
            config=config,
            llm_client=self.servers.get_client(),
            teacher_client=None,
            reward_loop_worker_handles=rewards.reward_loop_worker_handles,
        )

    def roll_out(self, chats: list[list[dict[str, str]]], step: int) -> Measured:
        """Roll out one tree a chat, as a training step does, and wait for the counts."""
        import transfer_queue as tq
        from verl.utils import tensordict_utils as tu

        from recipe.spo.rollout.queue import COUNTS_TAG, ERROR_TAG

        uids = [uuid.uuid4().hex for _ in chats]
        columns = {
            "raw_prompt": np.array([*chats, None], dtype=object)[:-1],
            "uid": np.array(uids, dtype=object),
            "index": np.arange(len(chats)),
            "data_source": np.array(["benchmark"] * len(chats), dtype=object),
            "reward_model": np.array([{"ground_truth": "0"}] * len(chats), dtype=object),
            "extra_info": np.array([{}] * len(chats), dtype=object),
        }
        batch = tu.get_tensordict(columns)
        tu.assign_non_tensor_data(batch, "global_steps", step)
        tags = [{"is_prompt": True, "status": "pending", "global_steps": step} for _ in uids]
        tq.kv_batch_put(keys=uids, partition_id="train", tags=tags)
        started = time.perf_counter()
        self.manager.generate_sequences(batch)
        while True:
            found = tq.kv_list("train")["train"]
            done = [found[uid] for uid in uids if found[uid]["status"] in ("finished", "failure")]
            if len(done) == len(uids):
                break
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        failed = [tag[ERROR_TAG] for tag in done if ERROR_TAG in tag]
        if failed:
            raise RuntimeError(f"{len(failed)} rollouts failed; the first one: {failed[0]}")
        tq.kv_clear(keys=list(found), partition_id="train")
        counts = [tag[COUNTS_TAG] for tag in done]
        total = {name: sum(c[name] for c in counts) for name in ("generated_tokens", "prompt_tokens", "cached_tokens")}
        return Measured(int(total["generated_tokens"]), seconds, total["cached_tokens"] / total["prompt_tokens"])


class Engine:
    """vLLM's own async engine with the same engine settings."""

    def __init__(self, config: Any) -> None:
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        rollout = config.actor_rollout_ref.rollout
        self.engine = AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=config.actor_rollout_ref.model.path,
                dtype=rollout.dtype,
                max_model_len=rollout.max_model_len,
                max_num_seqs=rollout.max_num_seqs,
                max_num_batched_tokens=rollout.max_num_batched_tokens,
                enable_prefix_caching=True,
                enforce_eager=rollout.enforce_eager,
                seed=rollout.seed,
                **rollout.engine_kwargs.vllm,
            )
        )
        self.prompt_tokens = self.cached_tokens = 0

    async def roll_out(self, prompts: list[list[int]]) -> Measured:
        """Grow one tree a prompt, one request a node."""
        self.prompt_tokens = self.cached_tokens = 0
        started = time.perf_counter()
        tokens = sum(await asyncio.gather(*(self._expand(prompt, 0) for prompt in prompts)))
        seconds = time.perf_counter() - started
        return Measured(tokens, seconds, self.cached_tokens / self.prompt_tokens)

    async def _expand(self, context: list[int], depth: int) -> int:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        last = depth == len(BRANCH_FACTORS) - 1
        params = SamplingParams(
            n=BRANCH_FACTORS[depth],
            max_tokens=LAST_LENGTH if last else SEGMENT_LENGTH,
            temperature=1.0,
            ignore_eos=True,
            logprobs=0,
            output_kind=RequestOutputKind.FINAL_ONLY,  # all n at once; streaming costs host time
        )
        final = None
        async for output in self.engine.generate(TokensPrompt(prompt_token_ids=context), params, uuid.uuid4().hex):
            final = output
        self.prompt_tokens += len(context)
        self.cached_tokens += final.num_cached_tokens or 0
        children = [list(choice.token_ids) for choice in final.outputs]
        tokens = sum(map(len, children))
        if not last:
            tokens += sum(await asyncio.gather(*(self._expand([*context, *child], depth + 1) for child in children)))
        return tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", required=True, help="Hugging Face folder, such as SmolLM2-135M-Instruct")
    parser.add_argument("--questions", type=int, default=8, help="trees a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="rounds, each side in turn (default: %(default)s)")
    arguments = parser.parse_args()

    from recipe.spo.compat.machine import is_cpu_machine
    from recipe.spo.compat.processes import owned_run
    from recipe.spo.compat.verl_cpu import prepare_environment

    if is_cpu_machine():
        prepare_environment()
    from recipe.spo.plugin import register

    register()
    config = compose(arguments.model)
    with owned_run():
        run(config, arguments)


def run(config: Any, arguments: argparse.Namespace) -> None:
    """Start both sides, measure them in turn, print."""
    import ray
    from omegaconf import OmegaConf
    from transformers import AutoTokenizer
    from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

    environment = get_ppo_ray_runtime_env(config)
    environment["env_vars"]["TRANSFER_QUEUE_ENABLE"] = "1"
    init = OmegaConf.to_container(config.ray_kwargs.ray_init, resolve=True)
    ray.init(**{**init, "runtime_env": environment})
    ours, tokenizer = Ours(config), AutoTokenizer.from_pretrained(arguments.model)
    loop = asyncio.new_event_loop()

    async def engine_side() -> Engine:
        return Engine(config)

    engine = loop.run_until_complete(engine_side())
    results: dict[str, list[Measured]] = {"ours": [], "vLLM": []}
    for round_number in range(arguments.rounds + 1):  # round 0 warms both sides up with one question
        chats = questions(1 if round_number == 0 else arguments.questions, seed=round_number)
        prompts = [
            list(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)) for chat in chats
        ]
        measured = {
            "ours": ours.roll_out(chats, step=round_number),
            "vLLM": loop.run_until_complete(engine.roll_out(prompts)),
        }
        for side, value in measured.items():
            label = "warm-up" if round_number == 0 else f"round {round_number}"
            print(
                f"{label}  {side:5} {value.tokens:8,} tokens in {value.seconds:7.1f} s  {value.rate:8.1f} tokens/s  "
                f"prefix-cache hit rate {value.cache_hit_rate:.3f}",
                flush=True,
            )
            if round_number:
                results[side].append(value)
        if measured["ours"].tokens != measured["vLLM"].tokens:
            raise RuntimeError("the two sides did not generate the same number of tokens")
    engine.engine.shutdown()
    rates = {side: statistics.median(value.rate for value in values) for side, values in results.items()}
    print(f"ratio: {rates['ours'] / rates['vLLM']:.2f}")


if __name__ == "__main__":
    main()
