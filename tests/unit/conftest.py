"""A small run that passes every check, for the tests of what does not."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from tests.unit.test_settings import DEFAULTS


def question(text: str = "How many?") -> dict:
    return {
        "data_source": "test",
        "prompt": [{"role": "user", "content": text}],
        "reward_model": {"style": "rule", "ground_truth": "1"},
    }


def parquet(path: Path, rows: list[dict]) -> str:
    pd.DataFrame(rows, columns=list(question())).to_parquet(path)
    return str(path)


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> str:
    """A folder with a configuration, a tokenizer and something like weights: what is looked at before the start."""
    from recipe.spo.tiny_policy.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("model")
    build_tokenizer(["How many? Tell me the number of apples."], 64).save_pretrained(folder)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return str(folder)


@pytest.fixture
def config(tmp_path, model):
    data = parquet(tmp_path / "data.parquet", [question()] * 4)
    return OmegaConf.create(
        {
            "algorithm": {
                "adv_estimator": "spo",
                "use_kl_in_reward": False,
                "filter_groups": {"enable": False},
                "spo": DEFAULTS,
            },
            "critic": {"enable": False},
            "transfer_queue": {
                "backend": {"storage_backend": "SimpleStorage", "SimpleStorage": {"total_storage_size": 100000}}
            },
            "trainer": {
                "total_epochs": 2,
                "total_training_steps": None,
                "v1": {"trainer_mode": "spo_sync"},
                "device": "cuda",
                "n_gpus_per_node": 1,
                "nnodes": 1,
                "test_freq": 10,
                "save_freq": 50,
                "max_actor_ckpt_to_keep": 2,
                "max_critic_ckpt_to_keep": 2,
                "val_before_train": True,
            },
            "data": {
                "train_files": data,
                "val_files": [data],
                "train_batch_size": 4,
                "seed": 42,
                "train_max_samples": -1,
                "val_max_samples": -1,
                "max_prompt_length": 16,
                "max_response_length": 100,
                "prompt_key": "prompt",
                "filter_overlong_prompts": False,
            },
            "actor_rollout_ref": {
                "model": {
                    "path": model,
                    "lora_rank": 0,
                    "target_modules": "all-linear",
                    "enable_gradient_checkpointing": True,
                },
                "actor": {
                    "use_dynamic_bsz": True,
                    "ppo_micro_batch_size_per_gpu": None,
                    "loss_agg_mode": "token-mean",
                    "ppo_max_token_len_per_gpu": 1024,
                    "ppo_epochs": 1,
                    "ulysses_sequence_parallel_size": 1,
                    "fsdp_config": {"param_offload": False, "optimizer_offload": False},
                    "policy_loss": {"loss_mode": "spo"},
                    "clip_ratio": 0.2,
                    "clip_ratio_low": 0.2,
                    "clip_ratio_high": 0.2,
                    "use_kl_loss": True,
                    "kl_loss_type": "low_var_kl",
                },
                "ref": {"log_prob_use_dynamic_bsz": True, "log_prob_micro_batch_size_per_gpu": None},
                "rollout": {
                    "n": 1,
                    "top_p": 1.0,
                    "top_k": -1,
                    "log_prob_use_dynamic_bsz": True,
                    "log_prob_micro_batch_size_per_gpu": None,
                    "temperature": 1.0,
                    "calculate_log_probs": True,
                    "max_model_len": None,
                    "full_determinism": False,
                    "enable_chunked_prefill": True,
                    "tensor_model_parallel_size": 1,
                    "data_parallel_size": 1,
                    "pipeline_model_parallel_size": 1,
                    "gpu_memory_utilization": 0.5,
                    "val_kwargs": {"n": 1},
                },
            },
        }
    )


@pytest.fixture
def folder(tmp_path):
    """Makes a folder that holds a config.json, and nothing else."""

    def make(content):
        (tmp_path / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path

    return make
