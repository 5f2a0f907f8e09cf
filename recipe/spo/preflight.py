"""Everything that can be known to be wrong before Ray starts, said in one sentence each.

Starting the stack takes a minute; a wrong path or a branch factor of zero should not cost that.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from recipe.spo.reader import SettingsError, unknown_key
from recipe.spo.settings import SPOSettings, settings_of

REQUIRED_COLUMNS = ("data_source", "reward_model")
#: config/method/NAME.yaml -> the node of `algorithm.spo` that shapes its rollouts.
METHOD_SHAPES = {
    "tree": "tree",
    "chain": "chain",
    "vineppo": "chain",
    "equal_parts": "chain",
    "grpo": "group",
    "grpo_mask": "group",
    "rloo": "group",
    "reinforce_pp": "group",
    "ppo": "group",
}


class PreflightError(ValueError):
    """Something about the run cannot work; the message names it and says what to do."""


def check_run(config: DictConfig) -> SPOSettings:
    """Check a composed configuration, its data files and its model.

    Args:
        config: the whole configuration.

    Returns:
        The parsed `algorithm.spo`.

    Raises:
        PreflightError, SettingsError: the first problem found.
    """
    settings = settings_of(config, int(config.data.max_response_length))
    check_verl_settings(config, settings)
    for key in ("train_files", "val_files"):
        check_data_files(f"data.{key}", config.data[key], config.data.prompt_key)
    tokenizer = load_tokenizer(config.actor_rollout_ref.model)
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
    prompts = sum(_row_count(path) for path in _paths(data.train_files))
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
    context = data.max_prompt_length + data.max_response_length
    if actor.ppo_max_token_len_per_gpu < context:
        raise PreflightError(
            f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu={actor.ppo_max_token_len_per_gpu} is shorter than "
            f"a row can be ({context} = data.max_prompt_length + data.max_response_length): raise it"
        )
    if rollout.max_model_len is not None and rollout.max_model_len < context:
        raise PreflightError(
            f"actor_rollout_ref.rollout.max_model_len={rollout.max_model_len} is shorter than data.max_prompt_length "
            f"+ data.max_response_length = {context}: raise it or leave it null"
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
    elif not actor.use_dynamic_bsz:
        raise PreflightError(f"{key}.use_dynamic_bsz is off: the number of rows varies, set it to True")
    if actor.loss_agg_mode not in ("token-mean", "seq-mean-token-sum"):
        raise PreflightError(
            f"{key}.loss_agg_mode is {actor.loss_agg_mode!r}: use 'token-mean' or 'seq-mean-token-sum'"
        )
    if actor.policy_loss.loss_mode != "spo" and settings.normalize == "micro_batch":
        raise PreflightError(
            f"{key}.policy_loss.loss_mode is {actor.policy_loss.loss_mode!r}: leave it at 'spo', "
            "algorithm.spo.normalize=micro_batch is part of the loss"
        )


def check_data_files(key: str, files: Any, prompt_key: str = "prompt") -> None:
    """Check that parquet files exist, hold prompts and have the columns that training needs.

    Raises:
        PreflightError: naming the key and the file.
    """
    import pyarrow.parquet as pq

    paths = _paths(files)
    if not paths:
        raise PreflightError(f"{key} is empty: give a parquet file, see data_prep/")
    for path in paths:
        if not os.path.exists(path):
            raise PreflightError(f"{key}: {path} does not exist; prepare it with data_prep/ (see README)")
        if not path.endswith(".parquet"):
            raise PreflightError(f"{key}: {path} is not a .parquet file; make one with data_prep/")
        try:
            table = pq.ParquetFile(path)
        except Exception as error:
            raise PreflightError(f"{key}: {path} cannot be read as parquet ({error})") from None
        missing = [name for name in (prompt_key, *REQUIRED_COLUMNS) if name not in table.schema_arrow.names]
        if missing:
            raise PreflightError(
                f"{key}: {path} lacks column {', '.join(missing)}; it has {', '.join(table.schema_arrow.names)}. "
                "data_prep/ writes the right schema"
            )
        if table.metadata.num_rows == 0:
            raise PreflightError(f"{key}: {path} holds no rows")
        if "ground_truth" not in [field.name for field in table.schema_arrow.field("reward_model").type]:
            raise PreflightError(f"{key}: {path}: column reward_model lacks ground_truth, which rewards compare with")


def load_tokenizer(model: DictConfig) -> Any:
    """Load the model's tokenizer, and check that it can render a chat and end a response.

    Raises:
        PreflightError: no model folder, no tokenizer in it, no chat template, no EOS token.
    """
    path = os.path.expanduser(str(model.path))
    looks_local = path.startswith((".", "/")) or os.path.exists(path) or path.count("/") != 1
    if looks_local:
        if not os.path.isdir(path):
            raise PreflightError(
                f"actor_rollout_ref.model.path: {path} is not a folder; give a Hugging Face folder or id"
            )
        if not os.path.exists(os.path.join(path, "config.json")):
            raise PreflightError(f"actor_rollout_ref.model.path: {path} has no config.json, so it is no model folder")
    source = os.path.expanduser(str(model.tokenizer_path)) if model.get("tokenizer_path") else path
    if os.path.isdir(source) and not glob.glob(os.path.join(glob.escape(source), "tokenizer*")):
        raise PreflightError(
            f"actor_rollout_ref.model.path: {source} holds no tokenizer (no tokenizer.json or tokenizer_config.json); "
            "save one there with tokenizer.save_pretrained, or set actor_rollout_ref.model.tokenizer_path"
        )
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=bool(model.get("trust_remote_code")))
    except Exception as error:
        raise PreflightError(
            f"actor_rollout_ref.model.path: the tokenizer of {source} cannot be loaded ({error})"
        ) from None
    if tokenizer.eos_token_id is None:
        raise PreflightError(f"actor_rollout_ref.model.path: the tokenizer of {source} has no EOS token")
    if model.get("custom_chat_template"):
        tokenizer.chat_template = model.custom_chat_template
    if tokenizer.chat_template is None:
        raise PreflightError(
            f"actor_rollout_ref.model.path: the tokenizer of {source} has no chat template; "
            "set actor_rollout_ref.model.custom_chat_template"
        )
    return tokenizer


def check_prompt_lengths(key: str, data: DictConfig, files: Any, tokenizer: Any) -> int:
    """Count the prompts that are longer than `data.max_prompt_length`.

    With `data.filter_overlong_prompts` verl drops them; how many is printed. Without, they are an
    error, because a truncated question is another question.

    Returns:
        How many prompts are too long.

    Raises:
        PreflightError: some are, and they are not filtered; names the first ones.
    """
    limit, template_options = data.max_prompt_length, dict(data.get("apply_chat_template_kwargs") or {})
    long: list[str] = []
    total = 0
    for path, number, messages in _prompts(files, data.prompt_key):
        total += 1
        try:
            text = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False, **template_options
            )
        except Exception as error:
            raise PreflightError(f"{key}: row {number} of {path}: the prompt cannot be rendered ({error})") from None
        length = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        if length > limit:
            long.append(f"row {number} of {Path(path).name} ({length} tokens)")
    if not long:
        return 0
    what = f"{key}: {len(long)} of {total} prompts are longer than data.max_prompt_length={limit}: "
    what += ", ".join(long[:5]) + (", ..." if len(long) > 5 else "")
    if not data.filter_overlong_prompts:
        raise PreflightError(f"{what}. Raise the limit, or drop them with data.filter_overlong_prompts=True")
    if len(long) == total:
        raise PreflightError(f"{what}. Nothing would be left: raise data.max_prompt_length")
    print(f"{what}. They are dropped.")
    return len(long)


def check_override_names(overrides: Iterable[str], known: Mapping[str, Sequence[str]]) -> None:
    """Catch what Hydra would answer with a call for a `+`: a misspelt key, a key of another method.

    Args:
        overrides: the command line.
        known: the keys of `algorithm.spo` and of the nodes under it.

    Raises:
        SettingsError: naming the key, with the closest one that exists.
    """
    names = [override.lstrip("+~").split("=", 1)[0] for override in overrides]
    for name in names:
        where, _, leaf = name.rpartition(".")
        if where in known and leaf not in known[where]:
            raise unknown_key(where, leaf, known[where])
    chosen = dict(override.split("=", 1) for override in overrides if "=" in override).get("method", "tree")
    shape = METHOD_SHAPES.get(chosen)
    for name in names:
        other = name.removeprefix("algorithm.spo.").split(".")[0]
        if name.startswith("algorithm.spo.") and shape and other in set(METHOD_SHAPES.values()) - {shape}:
            fitting = ", ".join(f"method={method}" for method, node in METHOD_SHAPES.items() if node == other)
            raise SettingsError(f"{name}: method={chosen} does not use algorithm.spo.{other}; {fitting} do")


def _paths(files: Any) -> list[str]:
    if files is None:
        return []
    listed = list(files) if isinstance(files, list | tuple | ListConfig) else [files]
    return [os.path.expanduser(str(path)) for path in listed if path]


def _row_count(path: str) -> int:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).metadata.num_rows


def _prompts(files: Any, column: str) -> Iterable[tuple[str, int, list[dict[str, str]]]]:
    import pyarrow.parquet as pq

    for path in _paths(files):
        for number, messages in enumerate(pq.read_table(path, columns=[column])[column].to_pylist()):
            yield path, number, messages
