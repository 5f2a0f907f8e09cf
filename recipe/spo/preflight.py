"""Everything that can be known to be wrong before Ray starts, said in one sentence each.

Starting the stack takes a minute; a wrong path or a branch factor of zero should not cost that.
"""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from recipe.spo.fit import check_machines, check_model, fetch_config, longest_row
from recipe.spo.inputs import (
    PreflightError,
    check_data_files,
    check_ground_truths,
    check_prompt_lengths,
    check_stop_texts,
    load_tokenizer,
    paths_of,
    row_count,
)
from recipe.spo.model_shape import local_config
from recipe.spo.parsing import settings_of
from recipe.spo.settings import SPOSettings
from recipe.spo.sharing_checks import check_sharing
from recipe.spo.value_checks import check_numbers, check_trained_policy

#: verl's estimators of the KL divergence.
KL_TYPES = ("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3")

#: Tokens of a row that verl adds to a batch that does not divide; verl stops at one that exceeds the token limit.
PADDING_TOKENS = 128


def check_settings(config: DictConfig, gpus: int | None = None) -> SPOSettings:
    """Check a composed configuration without its data; nothing is downloaded.

    Args:
        config: the whole configuration.
        gpus: how many GPUs this machine has, where that matters; see `recipe.spo.fit.check_machines`.

    Returns:
        The parsed `algorithm.spo`.

    Raises:
        PreflightError, SettingsError: the first problem found.
    """
    check_numbers(config)
    settings = settings_of(config, config.data.max_response_length)
    check_verl_settings(config, settings)
    check_trained_policy(config, settings)
    check_queue_size(config, settings)
    check_keeping(config, settings)
    check_sharing(config, settings)
    check_machines(config, settings, gpus)
    check_model(config, settings.context_schedule)
    return settings


def check_run(config: DictConfig, gpus: int | None = None) -> SPOSettings:
    """Check a composed configuration, its data files and its model.

    Args:
        config: the whole configuration.
        gpus: how many GPUs this machine has, where that matters; see `recipe.spo.fit.check_machines`.

    Returns:
        The parsed `algorithm.spo`.

    Raises:
        PreflightError, SettingsError: the first problem found.
    """
    settings = check_settings(config, gpus)
    for key in ("train_files", "val_files"):
        check_data_files(f"data.{key}", config.data[key], config.data.prompt_key)
        check_ground_truths(f"data.{key}", config.data[key], OmegaConf.select(config, "reward.custom_reward_function"))
    model = str(config.actor_rollout_ref.model.path)
    sizes_unknown = local_config(model) is None  # a hub id, so `check_settings` could not look at them
    tokenizer = load_tokenizer(config.actor_rollout_ref.model)
    check_stop_texts(settings.stop, tokenizer)
    if sizes_unknown:
        fetch_config(model)
        check_model(config, settings.context_schedule)
    dropped = {
        key: check_prompt_lengths(f"data.{key}", config.data, config.data[key], tokenizer)
        for key in ("train_files", "val_files")
    }
    check_training_length(config, dropped["train_files"])
    return settings


def check_training_length(config: DictConfig, dropped: int) -> None:
    """Check that the training prompts fill a batch, and the steps asked for.

    Args:
        config: the whole configuration.
        dropped: training prompts that are too long and will be filtered out.

    Raises:
        PreflightError: naming the key.
    """
    data, trainer = config.data, config.trainer
    prompts = sum(row_count(path) for path in paths_of(data.train_files))
    if data.train_max_samples > 0:
        prompts = min(prompts, data.train_max_samples)
    prompts -= dropped
    if prompts < data.train_batch_size:
        raise PreflightError(
            f"data.train_files holds {prompts} prompts, fewer than data.train_batch_size={data.train_batch_size}: "
            "lower the batch size or add data"
        )
    possible = prompts // data.train_batch_size * trainer.total_epochs
    if trainer.total_training_steps is not None and trainer.total_training_steps > possible:
        raise PreflightError(
            f"trainer.total_training_steps={trainer.total_training_steps} cannot be reached: trainer.total_epochs="
            f"{trainer.total_epochs} epochs of {prompts} prompts end after {possible} steps; raise trainer.total_epochs"
        )


def check_verl_settings(config: DictConfig, settings: SPOSettings) -> None:
    """Refuse settings of verl that SPO cannot work with.

    Raises:
        PreflightError: naming the key.
    """
    rollout, actor, data = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor, config.data
    if rollout.n != 1:
        raise PreflightError(
            f"actor_rollout_ref.rollout.n is {rollout.n}: it must be 1, a prompt's responses are sampled together; "
            "set their number with algorithm.spo.tree.branch_factors, chain.trajectories or group.responses"
        )
    check_estimator(config, settings)
    check_batching(actor, settings)
    if not rollout.calculate_log_probs:
        raise PreflightError("actor_rollout_ref.rollout.calculate_log_probs is off: the probability mask needs it")
    if config.algorithm.use_kl_in_reward:
        raise PreflightError(
            "algorithm.use_kl_in_reward is on: segment advantages are made of the task's reward alone; "
            "use actor_rollout_ref.actor.use_kl_loss"
        )
    if config.trainer.v1.trainer_mode != "spo_sync":
        raise PreflightError(f"trainer.v1.trainer_mode is {config.trainer.v1.trainer_mode!r}: it must be 'spo_sync'")
    if rollout.temperature <= 0:
        raise PreflightError(
            f"actor_rollout_ref.rollout.temperature is {rollout.temperature}: siblings would all be equal; raise it"
        )
    if config.algorithm.filter_groups.enable:
        raise PreflightError("algorithm.filter_groups.enable is on: segments without signal are dropped already")
    longest, why = longest_row(data, settings.context_schedule)
    if actor.ppo_max_token_len_per_gpu < longest:
        raise PreflightError(
            f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu={actor.ppo_max_token_len_per_gpu} is shorter than "
            f"a row can be ({longest} = {why}): raise it"
        )
    if actor.ppo_max_token_len_per_gpu < PADDING_TOKENS:
        raise PreflightError(
            f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu={actor.ppo_max_token_len_per_gpu} is shorter than the "
            f"rows that verl pads a batch with ({PADDING_TOKENS} tokens): raise it"
        )
    if rollout.max_model_len is not None and rollout.max_model_len < longest:
        raise PreflightError(
            f"actor_rollout_ref.rollout.max_model_len={rollout.max_model_len} is shorter than {why} = {longest}: "
            "raise it or leave it null"
        )
    check_micro_batches(config, settings)
    if rollout.top_p < 1.0 or rollout.top_k > 0:
        print(
            f"note: with actor_rollout_ref.rollout.top_p={rollout.top_p} and top_k={rollout.top_k} the sampler's "
            "probabilities are renormalised and the trainer's are not; the mask and rows that waited use the sampler's"
        )
    if rollout.full_determinism:
        raise PreflightError(
            "actor_rollout_ref.rollout.full_determinism is on: it gives all requests of a tree one id and one seed; "
            "use algorithm.spo.deterministic instead"
        )
    if settings.deterministic and rollout.enable_chunked_prefill:
        raise PreflightError(
            "algorithm.spo.deterministic needs actor_rollout_ref.rollout.enable_chunked_prefill=False: "
            "vLLM's CPU sampler cannot combine a seed on a request with chunked prefill"
        )


def check_estimator(config: DictConfig, settings: SPOSettings) -> None:
    """Check that advantages come from where the method says.

    Raises:
        PreflightError: naming the key.
    """
    wanted, found = "gae" if settings.method == "ppo" else "spo", config.algorithm.adv_estimator
    if found != wanted:
        raise PreflightError(
            f"algorithm.adv_estimator is {found!r}: it must be {wanted!r} for method {settings.method}; "
            "choose a method with method=NAME, see --help"
        )
    if bool(config.critic.enable) != (settings.method == "ppo"):
        raise PreflightError(
            f"critic.enable is {config.critic.enable}: method {settings.method} "
            + ("needs its critic, set it to True" if settings.method == "ppo" else "has no critic, set it to False")
        )


def check_batching(actor: DictConfig, settings: SPOSettings) -> None:
    """Check how rows are cut into micro-batches and how their loss is added up.

    Raises:
        PreflightError: naming the key.
    """
    key = "actor_rollout_ref.actor"
    if settings.as_published_code:
        if actor.use_dynamic_bsz or not actor.ppo_micro_batch_size_per_gpu:
            raise PreflightError(
                f"algorithm.spo.as_published_code needs micro-batches of a fixed number of rows: set "
                f"{key}.use_dynamic_bsz=False and {key}.ppo_micro_batch_size_per_gpu=8"
            )
        if actor.loss_agg_mode != "seq-mean-token-sum":
            raise PreflightError(
                f"{key}.loss_agg_mode is {actor.loss_agg_mode!r}: algorithm.spo.as_published_code sums the KL term "
                "over each row, set it to 'seq-mean-token-sum'"
            )
        if not actor.clip_ratio_low == actor.clip_ratio_high == actor.clip_ratio:
            raise PreflightError(f"{key}.clip_ratio_low and _high: algorithm.spo.as_published_code has clip_ratio only")
    elif not actor.use_dynamic_bsz:
        raise PreflightError(f"{key}.use_dynamic_bsz is off: the number of rows varies, set it to True")
    if actor.loss_agg_mode not in ("token-mean", "seq-mean-token-sum"):
        raise PreflightError(
            f"{key}.loss_agg_mode is {actor.loss_agg_mode!r}: use 'token-mean' or 'seq-mean-token-sum'"
        )
    if actor.use_kl_loss and actor.kl_loss_type.removesuffix("+") not in KL_TYPES:
        raise PreflightError(f"{key}.kl_loss_type is {actor.kl_loss_type!r}: choose one of {', '.join(KL_TYPES)}")
    if actor.policy_loss.loss_mode != "spo" and settings.normalize == "micro_batch":
        raise PreflightError(
            f"{key}.policy_loss.loss_mode is {actor.policy_loss.loss_mode!r}: leave it at 'spo', "
            "algorithm.spo.normalize=micro_batch is part of the loss"
        )


def check_micro_batches(config: DictConfig, settings: SPOSettings) -> None:
    """Check that log-prob passes of a fixed number of rows divide every batch.

    Raises:
        PreflightError: naming the key.
    """
    if not settings.as_published_code:
        return
    unit = settings.optimizer_steps * config.actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu
    for part in ("rollout", "ref"):
        node = config.actor_rollout_ref[part]
        rows = node.log_prob_micro_batch_size_per_gpu
        if not node.log_prob_use_dynamic_bsz and (not rows or unit % rows):
            raise PreflightError(
                f"actor_rollout_ref.{part}.log_prob_micro_batch_size_per_gpu is {rows}: it must divide {unit}, "
                "optimizer_steps times actor.ppo_micro_batch_size_per_gpu"
            )


def check_keeping(config: DictConfig, settings: SPOSettings) -> None:
    """Check which checkpoints are to be kept.

    Raises:
        PreflightError: naming the key.
    """
    trainer = config.trainer
    newest = trainer.max_actor_ckpt_to_keep
    if newest is not None and (type(newest) is not int or newest < 1):
        raise PreflightError(
            f"trainer.max_actor_ckpt_to_keep is {newest!r}: a whole number of at least 1, or null to keep all"
        )
    if trainer.max_critic_ckpt_to_keep != newest:
        raise PreflightError(
            f"trainer.max_critic_ckpt_to_keep is {trainer.max_critic_ckpt_to_keep!r}: leave it out, actor and critic "
            f"of a step are kept together (trainer.max_actor_ckpt_to_keep={newest})"
        )
    if trainer.get("remove_previous_ckpt_in_save"):
        raise PreflightError(
            "trainer.remove_previous_ckpt_in_save is on: verl has given it up, use trainer.max_actor_ckpt_to_keep=1"
        )
    if isinstance(settings.keep_best, str) and trainer.save_freq > 0 >= trainer.test_freq:
        raise PreflightError(
            f"algorithm.spo.keep_best is {settings.keep_best!r}, but trainer.test_freq={trainer.test_freq} never "
            "validates: set trainer.test_freq, or keep_best=null"
        )


def check_queue_size(config: DictConfig, settings: SPOSettings) -> None:
    """Check that TransferQueue has room for the rows of all steps that may wait.

    Raises:
        PreflightError: naming the key.
    """
    storage = config.transfer_queue.backend
    if storage.storage_backend != "SimpleStorage":
        return
    rows = config.data.train_batch_size * settings.max_samples * (settings.replay.max_age + 1)
    room = storage.SimpleStorage.total_storage_size
    if rows > room:
        raise PreflightError(
            f"transfer_queue.backend.SimpleStorage.total_storage_size={room} is less than the {rows} rows that "
            f"{config.data.train_batch_size} questions can give in {settings.replay.max_age + 1} steps: raise it"
        )
