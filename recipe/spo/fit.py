"""Does the run fit its machines and its model? Asked before anything is downloaded or started."""

from __future__ import annotations

from omegaconf import DictConfig

from recipe.spo.inputs import PreflightError
from recipe.spo.lora import LoraError, adapted_modules
from recipe.spo.model_shape import ModelShapeError, local_config, measure, read_config
from recipe.spo.schedule import ContextSchedule
from recipe.spo.settings import SPOSettings

ROLLOUT = "actor_rollout_ref.rollout"


def check_machines(config: DictConfig, settings: SPOSettings, gpus: int | None = None) -> None:
    """Check that processes and batches divide among the GPUs.

    Args:
        config: the whole configuration.
        settings: its `algorithm.spo`.
        gpus: how many GPUs this machine has; `None` if that does not matter: on a CPU, where a process counts as
            one, and in a cluster that this machine only starts the run in.

    Raises:
        PreflightError: naming the key.
    """
    trainer, rollout, actor = config.trainer, config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor
    for key in ("n_gpus_per_node", "nnodes"):
        if not isinstance(trainer[key], int) or trainer[key] < 1:
            raise PreflightError(f"trainer.{key} is {trainer[key]}: it must be a whole number of at least 1")
    if gpus is not None and trainer.n_gpus_per_node > gpus:
        raise PreflightError(
            f"trainer.n_gpus_per_node is {trainer.n_gpus_per_node}, but this machine has {gpus or 'no'} GPUs that "
            f"can be used: {f'set it to {gpus} or less' if gpus else 'set platform=cpu'}, or look at "
            "CUDA_VISIBLE_DEVICES"
        )
    a_node, ranks = trainer.n_gpus_per_node, trainer.n_gpus_per_node * trainer.nnodes
    where = f"trainer.n_gpus_per_node={a_node} x trainer.nnodes={trainer.nnodes}"
    server = (
        rollout.tensor_model_parallel_size * rollout.data_parallel_size * rollout.pipeline_model_parallel_size
    )  # GPUs of one vLLM server
    if ranks % server or server % min(server, a_node):
        raise PreflightError(
            f"{ROLLOUT}.tensor_model_parallel_size={rollout.tensor_model_parallel_size} (with data_parallel_size="
            f"{rollout.data_parallel_size} and pipeline_model_parallel_size={rollout.pipeline_model_parallel_size}, "
            f"{server} GPUs a server) does not divide the {ranks} GPUs of {where}"
        )
    sequence_parallel = actor.ulysses_sequence_parallel_size
    if ranks % sequence_parallel:
        raise PreflightError(
            f"actor_rollout_ref.actor.ulysses_sequence_parallel_size={sequence_parallel} does not divide the {ranks} "
            f"GPUs of {where}"
        )
    check_batch_sizes(config, settings, ranks // sequence_parallel)


def check_cluster(config: DictConfig, address: str | None) -> None:
    """Check that a run on several machines has a Ray cluster to run in; verl would wait for machines of its own.

    Args:
        config: the whole configuration.
        address: of the cluster: `RAY_ADDRESS` or `ray_kwargs.ray_init.address`.

    Raises:
        PreflightError: several machines without a cluster, or on the CPU platform.
    """
    nodes = config.trainer.nnodes
    if nodes == 1:
        return
    if config.trainer.device == "cpu":
        raise PreflightError(
            f"trainer.nnodes is {nodes}: the CPU platform runs on one machine, set it to 1 and "
            "trainer.n_gpus_per_node to the number of processes"
        )
    if not address:
        raise PreflightError(
            f"trainer.nnodes is {nodes}, but this process knows no Ray cluster: `ray start` on every machine, then "
            "set RAY_ADDRESS=auto, or use `ray job submit` (docs/multi_node.md)"
        )


def check_attention(config: DictConfig, flash_attention: bool) -> None:
    """Check that the attention asked for is installed: verl's `vllm` extra brings no flash-attention.

    Args:
        config: the whole configuration.
        flash_attention: whether package `flash_attn` is there.

    Raises:
        PreflightError: it is not, and is asked for.
    """
    model = config.actor_rollout_ref.model
    wanted = dict(model.get("override_config") or {}).get("attn_implementation", "flash_attention_2")
    if wanted == "flash_attention_2" and not flash_attention:
        raise PreflightError(
            "actor_rollout_ref.model.override_config.attn_implementation is flash_attention_2, but flash-attn is not "
            "installed: pip install 'verl[fsdp]==0.9.1' (it may be compiled for long), or set it to sdpa"
        )


def check_batch_sizes(config: DictConfig, settings: SPOSettings, ranks: int) -> None:
    """Check that a full step divides among the ranks that see different rows.

    A step with fewer rows is padded; one that is always padded was set wrong.

    Raises:
        PreflightError: naming the key.
    """
    actor, data, rows = config.actor_rollout_ref.actor, config.data, settings.replay.rows_per_step
    unit = 1 if actor.use_dynamic_bsz else actor.ppo_micro_batch_size_per_gpu
    multiple = settings.optimizer_steps * ranks * unit
    if rows is not None and rows % multiple:
        units = f" in micro-batches of {unit}" if unit > 1 else ""
        raise PreflightError(
            f"algorithm.spo.replay.rows_per_step={rows} does not divide into optimizer_steps="
            f"{settings.optimizer_steps} batches over {ranks} ranks{units}: "
            f"use a multiple of {multiple}, such as {max(rows // multiple, 1) * multiple}"
        )
    if not actor.use_dynamic_bsz and data.train_batch_size % ranks:  # verl asserts it
        raise PreflightError(
            f"data.train_batch_size={data.train_batch_size} does not divide among {ranks} ranks, which verl needs "
            f"with actor_rollout_ref.actor.use_dynamic_bsz=False: use a multiple of {ranks}"
        )


def longest_row(data: DictConfig, schedule: ContextSchedule | None) -> tuple[int, str]:
    """Most tokens of a prompt and its response together, and the keys that say so."""
    limits = data.max_prompt_length + data.max_response_length, "data.max_prompt_length + data.max_response_length"
    if schedule is None:
        return limits
    context = max(stage.context for stage in schedule.stages)
    return min(limits, (context, "the longest context of algorithm.spo.context_schedule"))


def fetch_config(path: str) -> None:
    """Bring config.json of a hub id here, a few KB, before anything larger is downloaded.

    Raises:
        PreflightError: the hub does not give it.
    """
    if local_config(path) is not None:
        return
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(path, "config.json")
    except Exception as error:
        raise PreflightError(f"actor_rollout_ref.model.path: {path} has no config.json to be read ({error})") from None


def check_model(config: DictConfig, schedule: ContextSchedule | None = None) -> None:
    """Check the run against the model's config.json, where it is on this machine.

    Args:
        config: the whole configuration.
        schedule: of the context, if there is one.

    Raises:
        PreflightError: more context than the model has, tensor parallelism that does not divide its heads, or LoRA
            with nothing to adapt; naming the key.
    """
    model, rollout, data = config.actor_rollout_ref.model, config.actor_rollout_ref.rollout, config.data
    file = local_config(str(model.path))
    if file is None:
        return
    try:
        known = read_config(file)
    except ModelShapeError as error:
        raise PreflightError(f"actor_rollout_ref.model.path: {error}") from None
    known |= dict(model.get("override_config") or {})
    longest, why = longest_row(data, schedule)
    positions = known.get("max_position_embeddings")
    if positions is not None and longest > positions:
        raise PreflightError(
            f"{why} = {longest} is more than the model's context of {positions} tokens (max_position_embeddings in "
            f"{file}): lower it"
        )
    heads, tensor_parallel = known.get("num_attention_heads"), rollout.tensor_model_parallel_size
    if heads is not None and heads % tensor_parallel:
        sizes = ", ".join(str(n) for n in range(1, heads + 1) if heads % n == 0 and n <= 16)
        raise PreflightError(
            f"{ROLLOUT}.tensor_model_parallel_size={tensor_parallel} does not divide the model's {heads} attention "
            f"heads: use one of {sizes}"
        )
    if model.lora_rank > 0:
        targets = model.target_modules if isinstance(model.target_modules, str) else list(model.target_modules)
        try:
            adapted_modules(measure(file.parent, bool(model.get("trust_remote_code"))), targets)
        except (LoraError, ModelShapeError) as error:
            raise PreflightError(
                f"actor_rollout_ref.model.lora_rank is {model.lora_rank}: {error}; set lora_rank=0 or "
                "actor_rollout_ref.model.target_modules"
            ) from None
