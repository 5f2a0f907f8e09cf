"""Data files and tokenizer, looked at before Ray starts: one sentence for what is wrong with them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from recipe.spo.rewards import score

REQUIRED_COLUMNS = ("data_source", "reward_model")


class PreflightError(ValueError):
    """Something about the run cannot work; the message names it and says what to do."""


def check_data_files(key: str, files: Any, prompt_key: str = "prompt") -> None:
    """Check that parquet files exist, hold prompts and have the columns that training needs.

    Raises:
        PreflightError: naming the key and the file.
    """
    import pyarrow.parquet as pq

    paths = paths_of(files)
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
        check_types(key, path, table.schema_arrow, prompt_key)
        if "ground_truth" not in [field.name for field in table.schema_arrow.field("reward_model").type]:
            raise PreflightError(f"{key}: {path}: column reward_model lacks ground_truth, which rewards compare with")


def check_types(key: str, path: str, schema: Any, prompt_key: str) -> None:
    """Check that prompts are chats and reward models are structs.

    Raises:
        PreflightError: naming the key, the file and the column.
    """
    import pyarrow as pa

    prompt, reward = schema.field(prompt_key).type, schema.field("reward_model").type
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(test(prompt) for test in lists) or not pa.types.is_struct(prompt.value_type):
        raise PreflightError(
            f"{key}: {path}: column {prompt_key} holds {prompt}; it must hold chats, "
            "lists of {'role': ..., 'content': ...}"
        )
    if not pa.types.is_struct(reward):
        raise PreflightError(
            f"{key}: {path}: column reward_model holds {reward}; it must hold {{'style': ..., 'ground_truth': ...}}"
        )


def check_ground_truths(key: str, files: Any, reward_function: DictConfig | None) -> None:
    """Check that every row's data source has a grader, and that the grader can read its ground truth.

    Nothing is checked for a reward function other than this package's.

    Raises:
        PreflightError: naming the key, the file and the row.
    """
    if reward_function is None or not _is_ours(str(reward_function.get("path"))):
        return
    options = dict(reward_function.get("reward_kwargs") or {})
    known = {name: options[name] for name in ("task", "grader") if name in options}
    for path, number, row in _rows(files, ["data_source", "reward_model"]):
        truth = (row["reward_model"] or {}).get("ground_truth")
        if not isinstance(truth, str):
            raise PreflightError(
                f"{key}: row {number} of {path}: reward_model.ground_truth is {truth!r}; it must be a text, such as "
                "'72'"
            )
        try:
            score.grader_for(row["data_source"], **known)("", truth)
        except ValueError as error:
            raise PreflightError(f"{key}: row {number} of {path}: {error}") from None


def _is_ours(path: str) -> bool:
    """Whether a reward function's path is this package's `score`, as a module or as a file."""
    if path.startswith("pkg://"):
        return path.removeprefix("pkg://") == score.__name__
    return os.path.realpath(os.path.expanduser(path)) == os.path.realpath(score.__file__)


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
        if not any(glob.glob(os.path.join(glob.escape(path), f"*.{kind}")) for kind in ("safetensors", "bin", "pt")):
            raise PreflightError(
                f"actor_rollout_ref.model.path: {path} holds no weights (*.safetensors or *.bin); save the model there "
                "with model.save_pretrained"
            )
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


def check_stop_texts(texts: Iterable[str], tokenizer: Any) -> None:
    """Refuse texts that no response can hold, since special tokens are left out where responses are decoded.

    Raises:
        PreflightError: naming the text.
    """
    for text in texts:
        special = [token for token in tokenizer.all_special_tokens if token in text]
        if special:
            raise PreflightError(
                f"algorithm.spo.stop: {text!r} holds the special token {special[0]!r}, which no decoded response does; "
                "EOS ends a response in any case"
            )


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
    for path, number, row in _rows(files, [data.prompt_key]):
        total, messages = total + 1, row[data.prompt_key]
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


def paths_of(files: Any) -> list[str]:
    if files is None:
        return []
    listed = list(files) if isinstance(files, list | tuple | ListConfig) else [files]
    return [os.path.expanduser(str(path)) for path in listed if path]


def row_count(path: str) -> int:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).metadata.num_rows


def _rows(files: Any, columns: list[str]) -> Iterable[tuple[str, int, dict[str, Any]]]:
    import pyarrow.parquet as pq

    for path in paths_of(files):
        for number, row in enumerate(pq.read_table(path, columns=columns).to_pylist()):
            yield path, number, row
