"""Every experiment composes, passes the checks before Ray, and is what was published but for listed differences."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from recipe.spo.fit import check_machines
from recipe.spo.overrides import check_override_names, chosen_method
from recipe.spo.parsing import settings_of
from recipe.spo.preflight import check_queue_size, check_verl_settings
from recipe.spo.reader import SettingsError

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "recipe/spo/config"
FILES = sorted((CONFIG / "experiments").glob("*.yaml"))
NAMES = [path.stem for path in FILES]
TABLE = yaml.safe_load((ROOT / "tests/data/published_settings.yaml").read_text())
#: Keys that say where things are or how a run is kept, not what is trained.
BOOKKEEPING = {"trainer.experiment_name", "trainer.total_epochs", "data.train_files", "data.filter_overlong_prompts"}
BOOKKEEPING |= {"trainer.max_actor_ckpt_to_keep", "trainer.max_critic_ckpt_to_keep"}
ACTOR, ROLLOUT, SPO = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "algorithm.spo"
#: Terms of the authors that are one key of ours.
KEYS = {
    "temperature": f"{ROLLOUT}.temperature",
    "top_p": f"{ROLLOUT}.top_p",
    "clip_ratio": f"{ACTOR}.clip_ratio",
    "grad_clip": f"{ACTOR}.grad_clip",
    "learning_rate": f"{ACTOR}.optim.lr",
    "weight_decay": f"{ACTOR}.optim.weight_decay",
    "warm_up": f"{ACTOR}.optim.lr_warmup_steps_ratio",
    "schedule": f"{ACTOR}.optim.lr_scheduler_type",
    "last_rate": f"{ACTOR}.optim.min_lr_ratio",
    "kl_coefficient": f"{ACTOR}.kl_loss_coef",
    "kl_estimator": f"{ACTOR}.kl_loss_type",
    "kl_sum": f"{ACTOR}.loss_agg_mode",
    "epochs": f"{ACTOR}.ppo_epochs",
    "whitening": f"{SPO}.normalize",
    "cut_threshold": f"{SPO}.cut_threshold",
    "mask": f"{SPO}.mask_threshold",
    "credit": f"{SPO}.credit",
    "keep_without_signal": f"{SPO}.keep_zero_advantage",
    "stop_strings": f"{SPO}.stop",
    "most_sequences": f"{ROLLOUT}.max_num_seqs",
    "unfinished": f"{SPO}.unfinished_reward",
    "replay_old_rows": f"{SPO}.replay.max_age",
    "rows_of_a_question": f"{SPO}.replay.rows_per_question",
    "iterations": "trainer.total_training_steps",
    "evaluate_every": "trainer.test_freq",
    "save_every": "trainer.save_freq",
    "evaluate_temperature": f"{ROLLOUT}.val_kwargs.temperature",
    "evaluate_samples": f"{ROLLOUT}.val_kwargs.n",
    "evaluate_top_p": f"{ROLLOUT}.val_kwargs.top_p",
    "model": "actor_rollout_ref.model.path",
    "longest_prompt": "data.max_prompt_length",
    "questions": "data.train_batch_size",
    "branch_factors": f"{SPO}.tree.branch_factors",
    "continuations": f"{SPO}.chain.continuations",
    "partition": f"{SPO}.chain.partition",
    "cut_interval": f"{SPO}.chain.cut_interval",
    "most_steps": f"{SPO}.chain.max_steps",
    "equal_parts": f"{SPO}.chain.parts",
    "discount": "algorithm.gamma",
    "lambda": "algorithm.lam",
    "value_clip": "critic.cliprange_value",
    "critic_schedule": "critic.optim.lr_scheduler_type",
}
#: Terms that follow from several.
READ: dict[str, Callable[[DictConfig], Any]] = {
    "context": lambda c: [stage.context for stage in c.algorithm.spo.context_schedule],
    "switch": lambda c: [stage.from_step for stage in c.algorithm.spo.context_schedule[1:]],
    "response_after_100": lambda c: min(c.data.max_response_length, c.algorithm.spo.context_schedule[0].context - 100),
    "segment_length": lambda c: segment_lengths(c),
    "responses": lambda c: responses(c),
    "episodes": lambda c: episodes(c),
    "batch": lambda c: episodes(c) / c.algorithm.spo.optimizer_steps,
    "mask_by": lambda c: c.algorithm.spo.mask_source if c.algorithm.spo.mask_threshold else None,
    "cut_by": lambda c: "rollout" if c.algorithm.spo.chain.partition == "low_probability" else None,
    "data": lambda c: Path(c.data.train_files).parent.name,
    "evaluate_on": lambda c: Path(c.data.val_files).stem,
    "kl_clip": lambda c: largest_kl(c),
    "bos": lambda c: "always" if "bos_token" in c.actor_rollout_ref.model.custom_chat_template else "never",
}
READ_KEYS = {f"{SPO}.chain.trajectories", f"{SPO}.group.responses", f"{SPO}.replay.rows_per_step"}
READ_KEYS |= {f"{SPO}.tree.segment_length", f"{SPO}.context_schedule", "data.max_response_length"}
READ_KEYS |= {f"{SPO}.optimizer_steps", f"{SPO}.mask_source", "data.val_files"}
READ_KEYS |= {
    "actor_rollout_ref.model.custom_chat_template",
    "critic.optim.min_lr_ratio",
    f"{ROLLOUT}.val_kwargs.do_sample",
}
#: What the table must say of an experiment with such a node; the other terms it says of all.
OF_TREES = {"branch_factors", "segment_length"}
OF_CHAINS = {"continuations", "partition", "cut_by"}
OF_PPO = {"discount", "lambda", "value_clip", "critic_schedule"}
SOMETIMES = {"cut_interval", "most_steps", "equal_parts", "responses", "bos", *OF_PPO}


def largest_kl(config: DictConfig) -> float:
    """Of verl's estimator, for one token."""
    from verl.trainer.ppo.core_algos import kl_penalty

    far = torch.tensor([-1e4]), torch.tensor([0.0])
    return kl_penalty(*far, config.actor_rollout_ref.actor.kl_loss_type).item()


def responses(config: DictConfig) -> int:
    spo = config.algorithm.spo
    return spo.chain.trajectories if spo.chain else spo.group.responses


def segment_lengths(config: DictConfig) -> int | list[int]:
    """One number, or one a stage."""
    stages = [stage.get("segment_length") for stage in config.algorithm.spo.context_schedule]
    return stages if any(stages) else config.algorithm.spo.tree.segment_length


def episodes(config: DictConfig) -> int:
    """Rows that train in a step: of trees a budget, of the others all there are."""
    spo = config.algorithm.spo
    return spo.replay.rows_per_step if spo.tree else config.data.train_batch_size * responses(config)


@pytest.fixture(scope="module", autouse=True)
def hydra_ready():
    import verl  # noqa: F401  # its configurations are on Hydra's search path; loads our plug-in's resolver

    from recipe.spo.plugin import register_resolver

    register_resolver()
    with initialize_config_dir(str(CONFIG), version_base=None):
        yield
    composed.cache_clear()


@functools.cache
def composed(name: str, *overrides: str) -> DictConfig:
    config = compose("spo_trainer", overrides=[f"experiments={name}", *overrides])
    OmegaConf.resolve(config)
    return config


def check_before_ray(config: DictConfig) -> None:
    """What `main_spo` checks before it starts anything, but for data and model on disk."""
    from verl.utils.config import validate_config

    settings = settings_of(config, config.data.max_response_length)
    check_verl_settings(config, settings)
    check_queue_size(config, settings)
    check_machines(config, settings)
    validate_config(config, use_reference_policy=True, use_critic=False)  # of a critic verl reads the model


def entries(name: str) -> dict[str, dict]:
    """What the table says of an experiment, later parts over earlier ones."""
    said: dict[str, Any] = {}
    own = dict(TABLE["experiments"][name])
    for part in own.pop("parts"):
        said |= TABLE["parts"][part]
    said |= own
    return {
        term: dict(zip(("published", "source"), entry, strict=True)) if isinstance(entry, list) else entry
        for term, entry in said.items()
    }


def value(config: DictConfig, term: str) -> Any:
    found = READ[term](config) if term in READ else OmegaConf.select(config, KEYS[term])
    return OmegaConf.to_container(found) if OmegaConf.is_config(found) else found


def differences(config: DictConfig, said: dict[str, dict]) -> list[str]:
    """Where a configuration is neither what was published nor the difference that is listed."""
    wrong = []
    for term, entry in said.items():
        ours, listed = value(config, term), "ours" in entry
        if listed and entry["ours"] == entry["published"]:
            wrong.append(f"{term}: the listed difference is none, both are {ours!r}")
        elif ours != entry["ours" if listed else "published"]:
            wrong.append(f"{term}: ours is {ours!r}, the table says {entry}")
    return wrong


def leaves(node: Any, above: str = "") -> set[str]:
    if not isinstance(node, dict):
        return {above}
    return set().union(*(leaves(below, f"{above}.{key}".lstrip(".")) for key, below in node.items()))


def test_the_table_and_the_files_name_the_same_experiments():
    assert set(TABLE["experiments"]) == set(NAMES) and len(NAMES) == 27


@pytest.mark.parametrize("name", NAMES)
def test_it_composes_passes_the_checks_and_is_what_was_published(name):
    config = composed(name)
    check_before_ray(config)
    assert config.trainer.experiment_name == name  # part of its checkpoint folder
    assert differences(config, entries(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_table_is_complete_and_gives_sources_and_reasons(name):
    said, config = entries(name), composed(name)
    expected = {*KEYS, *READ} - SOMETIMES - OF_TREES - OF_CHAINS
    expected |= OF_TREES if config.algorithm.spo.tree else {"responses"}
    expected |= OF_CHAINS if config.algorithm.spo.chain else set()
    expected |= OF_PPO if config.algorithm.spo.method == "ppo" else set()
    if config.algorithm.spo.chain:
        of_partition = {"low_probability": "cut_interval", "lines": "most_steps", "equal_parts": "equal_parts"}
        expected.add(of_partition[config.algorithm.spo.chain.partition])
    assert expected - {"bos"} <= set(said) and set(said) - expected <= {"bos"}
    for term, entry in said.items():
        assert entry["source"] in TABLE["sources"], term
        assert set(entry) == {"published", "source"} or (set(entry) >= {"ours", "because"} and entry["because"]), term


def test_every_key_that_an_experiment_sets_is_in_the_table_or_bookkeeping():
    known = {*KEYS.values(), *READ_KEYS, *BOOKKEEPING}
    for path in [*FILES, *(CONFIG / "experiments/base").glob("*.yaml")]:
        body = {key: node for key, node in yaml.safe_load(path.read_text()).items() if key != "defaults"}
        assert not leaves(body) - known if body else True, path.name


def test_a_change_of_either_side_is_found():
    name = "rho_gsm8k_tree_666"
    said = entries(name)
    assert differences(composed(name, "algorithm.spo.replay.rows_per_step=1024"), said) != []
    assert (
        "listed difference is none"
        in differences(composed(name), {**said, "schedule": {**said["schedule"], "published": "cosine"}}).pop()
    )


def test_the_command_line_knows_the_method_and_overrides_every_key():
    check_override_names(["experiments=rho_gsm8k_chain_int5", "algorithm.spo.chain.continuations=4"], {})
    with pytest.raises(SettingsError, match="method=chain does not use algorithm.spo.tree"):
        check_override_names(["experiments=rho_gsm8k_chain_int5", "algorithm.spo.tree.segment_length=4"], {})
    for name in NAMES:
        method = chosen_method({"experiments": name})
        preset = yaml.safe_load((CONFIG / "method" / f"{method}.yaml").read_text())
        assert preset["algorithm"]["spo"]["method"] == composed(name).algorithm.spo.method
    config = composed("rho_gsm8k_chain_int5", "algorithm.spo.chain.cut_interval=7", "data.train_files=mine.parquet")
    assert config.algorithm.spo.chain.cut_interval == 7 and config.data.train_files == "mine.parquet"


SCALED = {
    *("data.train_files", "data.val_files", "data.train_batch_size", "data.val_max_samples"),
    *("data.max_prompt_length", "data.max_response_length", f"{SPO}.tree.segment_length", f"{SPO}.context_schedule"),
    *("actor_rollout_ref.model.path", "actor_rollout_ref.model.custom_chat_template"),
    *(f"{SPO}.replay.rows_per_step", f"{ACTOR}.ppo_max_token_len_per_gpu", "trainer.total_training_steps"),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_overlay_scales_sizes_and_nothing_else(name):
    small, full = composed(name, "overlay=tiny_cpu"), composed(name)
    check_before_ray(small)
    overlays = [*(CONFIG / "overlay").rglob("*.yaml")]
    bodies = [yaml.safe_load(path.read_text()) for path in overlays]
    assert set().union(*map(leaves, bodies)) <= SCALED
    for term in ("branch_factors", "continuations", "cut_interval", "cut_threshold", "mask", "epochs", "schedule"):
        if OmegaConf.select(full, KEYS[term].rpartition(".")[0]) is not None:
            assert value(small, term) == value(full, term), term
    assert small.algorithm.spo.optimizer_steps == full.algorithm.spo.optimizer_steps
    assert small.algorithm.spo.replay.rows_per_question == full.algorithm.spo.replay.rows_per_question
    assert small.trainer.total_training_steps == 2


def test_the_documentation_has_every_experiment_with_its_data_command():
    page = (ROOT / "docs/experiments.md").read_text()
    for path in FILES:
        command = path.read_text().split("# Data: ", 1)[1].split("\n", 1)[0]
        folder = command.rpartition(" ")[2]
        assert f"`{path.stem}`" in page and command in page, path.stem
        assert composed(path.stem).data.train_files == f"{folder}/train.parquet"
        assert composed(path.stem).data.val_files == f"{folder}/validation.parquet"
