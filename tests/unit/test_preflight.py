"""Wrong inputs, one clear error each, before Ray is touched; the same checks that `main_spo` runs."""

from __future__ import annotations

import sys

import pandas as pd
import pytest
from omegaconf import OmegaConf

from recipe.spo.overrides import check_override_names
from recipe.spo.parsing import parse_settings
from recipe.spo.preflight import (
    PreflightError,
    check_data_files,
    check_ground_truths,
    check_prompt_lengths,
    check_run,
    check_verl_settings,
    load_tokenizer,
)
from recipe.spo.reader import SettingsError
from recipe.spo.rewards import score
from tests.unit.conftest import parquet, question
from tests.unit.test_settings import DEFAULTS


def test_a_good_run_passes(config):
    OmegaConf.update(config, "algorithm.rollout_correction", {"bypass_mode": True, "loss_type": "ppo_clip"})
    assert check_run(config).tree.branch_factors == (6, 6, 6)


PPO = {
    "algorithm.spo.method": "ppo",
    "algorithm.spo.tree": None,
    "algorithm.spo.group": {"responses": 8},
    "algorithm.spo.credit": None,
    "algorithm.spo.normalize": "batch",
}
PUBLISHED = {
    "algorithm.spo.as_published_code": True,
    "algorithm.spo.normalize": "micro_batch",
    "algorithm.spo.mask_source": "trainer",
}
FIXED = {
    **PUBLISHED,
    "actor_rollout_ref.actor.use_dynamic_bsz": False,
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 8,
}
WRONG = {
    "rollout.n is 8: it must be 1": {"actor_rollout_ref.rollout.n": 8},
    "adv_estimator is 'grpo'": {"algorithm.adv_estimator": "grpo"},
    "calculate_log_probs is off": {"actor_rollout_ref.rollout.calculate_log_probs": False},
    "use_dynamic_bsz is off": {"actor_rollout_ref.actor.use_dynamic_bsz": False},
    "loss_agg_mode is 'seq-mean-token-mean'": {"actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-mean"},
    "critic.enable is True: method tree has no critic": {"critic.enable": True},
    "critic.enable is False: method ppo needs its critic": {**PPO, "algorithm.adv_estimator": "gae"},
    "adv_estimator is 'spo': it must be 'gae' for method ppo": {**PPO, "critic.enable": True},
    "rollout.log_prob_micro_batch_size_per_gpu is 64: it must divide 32": {
        **FIXED,
        "actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-sum",
        "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz": False,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": 64,
    },
    "clip_ratio_low and _high": {
        **FIXED,
        "actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-sum",
        "actor_rollout_ref.actor.clip_ratio_high": 0.3,
    },
    "kl_loss_type is 'k4': choose one of": {"actor_rollout_ref.actor.kl_loss_type": "k4"},
    "data.seed is None: it must be a whole number": {"data.seed": None},
    "train_batch_size is 0: it must be a whole number of at least 1": {"data.train_batch_size": 0},
    "max_response_length is 'abc': it must be a whole number": {"data.max_response_length": "abc"},
    "rollout.temperature is 'abc': it must be a number": {"actor_rollout_ref.rollout.temperature": "abc"},
    "rollout.top_p is 0.0: it must be a number above 0 and at most 1": {"actor_rollout_ref.rollout.top_p": 0.0},
    "rollout.top_p is 1.5": {"actor_rollout_ref.rollout.top_p": 1.5},
    "clip_ratio is -0.2: it must be a number above 0": {"actor_rollout_ref.actor.clip_ratio": -0.2},
    "ppo_epochs is 0": {"actor_rollout_ref.actor.ppo_epochs": 0},
    "total_epochs is 0": {"trainer.total_epochs": 0},
    "total_training_steps is 0: it must be .*, or null": {"trainer.total_training_steps": 0},
    "optim.lr is 'abc'": {"actor_rollout_ref.actor.optim": {"lr": "abc"}},
    "data_loader_seed is None": {"actor_rollout_ref.actor.data_loader_seed": None},
    "algorithm.gamma is 'abc'": {"algorithm.gamma": "abc"},
    "rollout.name is 'sglang': segments are sampled with vllm": {"actor_rollout_ref.rollout.name": "sglang"},
    "critic_warmup is 5: method tree has no critic": {"trainer.critic_warmup": 5},
    "loss_mode is 'vanilla': use 'spo'": {"actor_rollout_ref.actor.policy_loss.loss_mode": "vanilla"},
    "bypass_mode is on: the trainer's own probabilities": {
        "algorithm.rollout_correction": {"bypass_mode": True},
        "algorithm.spo.mask_source": "trainer",
    },
    "bypass_mode is on: verl's trainer then corrects nothing": {
        "algorithm.rollout_correction": {"bypass_mode": True, "rollout_is": "token"}
    },
    "bypass_mode is on: verl's trainer then corrects": {
        "algorithm.rollout_correction": {"bypass_mode": True, "loss_type": "reinforce"}
    },
    "the loss of algorithm.spo.as_published_code has no weights": {
        **FIXED,
        "actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-sum",
        "algorithm.rollout_correction": {"rollout_is": "token"},
    },
    "total_storage_size=1000 is less than the 1032 rows": {
        "transfer_queue.backend.SimpleStorage.total_storage_size": 1000
    },
    "as_published_code needs micro-batches of a fixed number of rows": PUBLISHED,
    "loss_agg_mode is 'token-mean': algorithm.spo.as_published_code sums": {
        **PUBLISHED,
        "actor_rollout_ref.actor.use_dynamic_bsz": False,
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 8,
    },
    "loss_mode is 'gspo': leave it at 'spo'": {
        "actor_rollout_ref.actor.policy_loss.loss_mode": "gspo",
        "algorithm.spo.normalize": "micro_batch",
    },
    "filter_groups.enable is on": {"algorithm.filter_groups.enable": True},
    "ppo_max_token_len_per_gpu=64 is shorter": {"actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 64},
    "ppo_max_token_len_per_gpu=120 is shorter than the rows that verl pads a batch with .128 tokens": {
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 120
    },
    "max_model_len=100 is shorter": {"actor_rollout_ref.rollout.max_model_len": 100},
    "full_determinism is on": {"actor_rollout_ref.rollout.full_determinism": True},
    "deterministic needs": {"algorithm.spo.deterministic": True},
    "use_kl_in_reward is on": {"algorithm.use_kl_in_reward": True},
    "trainer_mode is 'sync'": {"trainer.v1.trainer_mode": "sync"},
    "temperature is 0": {"actor_rollout_ref.rollout.temperature": 0.0},
    "total_training_steps=3 cannot be reached": {"trainer.total_training_steps": 3},
    "holds 3 prompts, fewer than": {"data.train_max_samples": 3},
    "holds 4 prompts, fewer than data.train_batch_size=5": {"data.train_batch_size": 5},
    "nothing.parquet does not exist": {"data.train_files": "nothing.parquet"},
    "data.val_files is empty": {"data.val_files": []},
    "longer than data.max_prompt_length=2": {"data.max_prompt_length": 2},
    "model.path: ./no-such-model is not a folder": {"actor_rollout_ref.model.path": "./no-such-model"},
    "branch_factors\\[1\\] is 0": {"algorithm.spo.tree.branch_factors": [6, 0, 6]},
    "leave nothing of data.max_response_length=60": {"data.max_response_length": 60},
    r"context_schedule\[0\].context is 117: it is more than data.max_prompt_length": {
        "algorithm.spo.context_schedule": [{"from_step": 1, "context": 117}]
    },
    r"context_schedule\[0\]: 2 levels of \[30, 30\] tokens leave nothing": {
        "algorithm.spo.context_schedule": [{"from_step": 1, "context": 76}]
    },
    "trainer.max_actor_ckpt_to_keep is 0: a whole number": {"trainer.max_actor_ckpt_to_keep": 0},
    "trainer.max_critic_ckpt_to_keep is 3: leave it out": {"trainer.max_critic_ckpt_to_keep": 3},
    "remove_previous_ckpt_in_save is on": {"trainer.remove_previous_ckpt_in_save": True},
    "test_freq=-1 never validates": {"trainer.test_freq": -1, "algorithm.spo.keep_best": "val-core/a/acc/mean@1"},
    "keep_best is 'accuracy': true": {"algorithm.spo.keep_best": "accuracy"},
    "n_gpus_per_node is 0: it must be a whole number": {"trainer.n_gpus_per_node": 0},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_settings_are_refused_by_name(config, message):
    for key, value in WRONG[message].items():
        OmegaConf.update(config, key, value)
    with pytest.raises((PreflightError, SettingsError), match=message):
        check_run(config)


def test_data_files_name_the_missing_column_and_the_empty_file(tmp_path):
    path = tmp_path / "rows.parquet"
    pd.DataFrame([{"question": "?", "answer": "1"}]).to_parquet(path)
    with pytest.raises(PreflightError, match="lacks column prompt, data_source, reward_model; it has question, answer"):
        check_data_files("data.train_files", str(path))
    with pytest.raises(PreflightError, match="holds no rows"):
        check_data_files("data.train_files", parquet(tmp_path / "empty.parquet", []))
    pd.DataFrame([{**question(), "reward_model": {"style": "rule"}}]).to_parquet(path)
    with pytest.raises(PreflightError, match="reward_model lacks ground_truth"):
        check_data_files("data.train_files", str(path))
    for column, content, complaint in (
        ("prompt", "How many?", "column prompt holds .*string; it must hold chats"),
        ("prompt", ["How many?"], "column prompt holds list.*; it must hold chats"),
        ("reward_model", "1", "column reward_model holds .*string; it must hold"),
    ):
        pd.DataFrame([{**question(), column: content}]).to_parquet(path)
        with pytest.raises(PreflightError, match=f"data.train_files: .*rows.parquet: {complaint}"):
            check_data_files("data.train_files", str(path))
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    with pytest.raises(PreflightError, match="cannot be read as parquet"):
        check_data_files("data.train_files", str(tmp_path / "broken.parquet"))
    (tmp_path / "rows.jsonl").write_text("{}")
    with pytest.raises(PreflightError, match="not a .parquet file"):
        check_data_files("data.train_files", str(tmp_path / "rows.jsonl"))


def test_long_prompts_are_counted_and_named_or_dropped(tmp_path, config, capsys):
    long = question("Tell me the number of apples. Tell me the number of apples. Tell me the number of apples.")
    path = parquet(tmp_path / "mixed.parquet", [question(), long, question(), long])
    tokenizer = load_tokenizer(config.actor_rollout_ref.model)
    with pytest.raises(PreflightError, match=r"2 of 4 prompts .*row 1 of mixed.parquet \(\d+ tokens\), row 3"):
        check_prompt_lengths("data.train_files", config.data, path, tokenizer)
    config.data.filter_overlong_prompts = True
    assert check_prompt_lengths("data.train_files", config.data, path, tokenizer) == 2
    assert "They are dropped." in capsys.readouterr().out
    with pytest.raises(PreflightError, match="Nothing would be left"):
        check_prompt_lengths("data.train_files", config.data, parquet(tmp_path / "l.parquet", [long]), tokenizer)


def test_a_model_without_tokenizer_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(PreflightError, match="holds no weights"):
        load_tokenizer(OmegaConf.create({"path": str(tmp_path)}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(PreflightError, match="holds no tokenizer"):
        load_tokenizer(OmegaConf.create({"path": str(tmp_path)}))
    with pytest.raises(PreflightError, match="no config.json"):
        load_tokenizer(OmegaConf.create({"path": str(tmp_path.parent)}))


def test_a_tokenizer_without_chat_template_or_eos_is_refused(tmp_path):
    from recipe.spo.tiny_policy.tokenizer import build_tokenizer

    tokenizer = build_tokenizer(["a"], 64)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(PreflightError, match="no chat template"):
        load_tokenizer(OmegaConf.create({"path": str(tmp_path)}))
    assert load_tokenizer(OmegaConf.create({"path": str(tmp_path), "custom_chat_template": "{{ messages }}"}))


def test_deterministic_without_chunked_prefill_passes(config):
    config.algorithm.spo.deterministic = True
    config.actor_rollout_ref.rollout.enable_chunked_prefill = False
    settings = parse_settings(OmegaConf.to_container(config.algorithm.spo), 100)
    check_verl_settings(config, settings)


@pytest.mark.parametrize(
    "override", ["algorithm.spo.mask_treshold=0.5", "+algorithm.spo.mask_treshold=0.5", "~algorithm.spo.mask_treshold"]
)
def test_misspelt_overrides_are_caught(override):
    with pytest.raises(SettingsError, match="unknown key algorithm.spo.mask_treshold: did you mean 'mask_threshold'"):
        check_override_names([override], {"algorithm.spo": list(DEFAULTS)})
    check_override_names(["algorithm.spo.mask_threshold=0.5", "data.x=1"], {"algorithm.spo": list(DEFAULTS)})


def test_settings_of_another_method_are_caught():
    with pytest.raises(SettingsError, match="does not use algorithm.spo.chain; it belongs to method=chain, "):
        check_override_names(["algorithm.spo.chain.continuations=4"], {})
    with pytest.raises(SettingsError, match="method=grpo does not use algorithm.spo.tree; it belongs to method=tree"):
        check_override_names(["method=grpo", "algorithm.spo.tree.branch_factors=[2]"], {})
    check_override_names(["method=vineppo", "algorithm.spo.chain.continuations=4"], {})
    check_override_names(["--config-name", "mine", "algorithm.spo.chain.continuations=4"], {})  # a file's method


def test_the_method_is_chosen_by_its_preset():
    with pytest.raises(SettingsError, match="choose with method=NAME, one of tree, chain, vineppo"):
        check_override_names(["algorithm.spo.method=chain"], {})
    with pytest.raises(SettingsError, match="method=spo is not known: choose one of tree, chain, vineppo"):
        check_override_names(["method=spo"], {})


def test_checks_do_not_import_the_stack():
    import subprocess

    code = "import sys, recipe.spo.preflight, recipe.spo.tree, recipe.spo.rows, recipe.spo.batching, recipe.spo.metrics"
    code += ", recipe.spo.rollout.tree, recipe.spo.schedule, recipe.spo.plan, recipe.spo.plan_table"
    code += "\nprint([m for m in ('verl', 'vllm', 'ray', 'torch') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("truth", [72, None])
def test_a_truth_that_is_no_text_is_named(tmp_path, truth):
    rows = [{**question(), "data_source": "openai/gsm8k", "reward_model": {"ground_truth": truth}}]
    with pytest.raises(PreflightError, match=f"row 0 of .*ground_truth is {truth}; it must be a text, such as '72'"):
        check_ground_truths("data.val_files", parquet(tmp_path / "numbers.parquet", rows), OmegaConf.create(OURS))
    rows = [{**question(), "data_source": "openai/gsm8k"}, {**question(), "reward_model": None}]
    with pytest.raises(PreflightError, match="row 1 of .*ground_truth is None"):
        check_ground_truths("data.val_files", parquet(tmp_path / "none.parquet", rows), OmegaConf.create(OURS))


OURS = {"path": "pkg://recipe.spo.rewards.score", "name": "compute_score"}


@pytest.mark.parametrize(
    ("source", "truth", "options", "complaint"),
    [
        ("mine", "1", {}, "row 1 of .*no grader is known for data source 'mine'; known are openai/gsm8k"),
        ("openai/gsm8k", "one", {}, "row 1 of .*ground truth 'one' is not a number"),
        ("HuggingFaceH4/MATH-500", " ", {}, "row 1 of .*ground truth ' ' is empty"),
        ("mine", "[1, 2]", {"task": "point24"}, "row 1 of .*ground truth"),
        ("openai/gsm8k", None, {}, "row 1 of .*: reward_model.ground_truth is None; it must be a text"),
        ("mine", "1", {"task": "chess"}, "task 'chess' is not known; there are gsm8k, math, point24"),
        ("mine", "1", {"task": "math", "grader": "me"}, "grader 'me' is not known"),
    ],
)
def test_every_row_has_a_grader_that_reads_its_truth(tmp_path, source, truth, options, complaint):
    good = {**question(), "data_source": "openai/gsm8k"} if not options else question()
    if options.get("task") == "point24":
        good["reward_model"] = {"ground_truth": '{"numbers": [1, 2, 3, 4], "target": 24}'}
    bad = {**question(), "data_source": source, "reward_model": {"ground_truth": truth}}
    data = parquet(tmp_path / "graded.parquet", [good, bad])
    for path in (OURS["path"], score.__file__):
        reward = OmegaConf.create({**OURS, "path": path, "reward_kwargs": options})
        with pytest.raises(PreflightError, match=complaint) as error:
            check_ground_truths("data.val_files", data, reward)
        assert str(error.value).startswith("data.val_files: row")
    check_ground_truths("data.val_files", parquet(tmp_path / "good.parquet", [good] * 2), None)
    check_ground_truths("data.val_files", data, OmegaConf.create({**OURS, "path": "my_reward.py"}))
