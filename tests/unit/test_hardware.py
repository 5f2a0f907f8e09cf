"""`hardware=` and `lora=`: they compose with every experiment, pass its checks, and fit by the memory estimate."""

from __future__ import annotations

import functools
import json

import pytest
from hydra import compose
from omegaconf import DictConfig, OmegaConf

from recipe.spo import fit, plan
from recipe.spo.fit import check_attention, check_cluster
from recipe.spo.inputs import PreflightError
from recipe.spo.main_spo import variables_of_the_run
from recipe.spo.memory import MemoryEstimate
from recipe.spo.model_shape import measure
from recipe.spo.overrides import check_hardware_choice
from recipe.spo.parsing import settings_of
from recipe.spo.preflight import check_settings
from recipe.spo.reader import SettingsError
from tests.unit.test_experiments import CONFIG, NAMES, hydra_ready  # noqa: F401  # the fixture

#: Sizes of the published models, from their config.json; what they are called in the experiments -> a config.json.
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 4096}
QWEN = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "max_position_embeddings": 131072}
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
MODELS = {
    "rho": LLAMA | dict(zip(SIZES, (2048, 5632, 22, 32, 4), strict=True)) | {"vocab_size": 32000},
    "r1": QWEN | dict(zip(SIZES, (1536, 8960, 28, 12, 2), strict=True)) | {"vocab_size": 151936},
    "qwen15": QWEN | dict(zip(SIZES, (1536, 8960, 28, 12, 2), strict=True)) | {"vocab_size": 151936},
    "qwen05": QWEN | dict(zip(SIZES, (896, 4864, 24, 14, 2), strict=True)) | {"vocab_size": 151936},
}
TIED = {"rho": False, "r1": False, "qwen15": True, "qwen05": True}
CARDS = {"gpu_80gb": 80, "gpu_24gb": 24}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    """Folders with the published models' config.json and nothing else."""
    folders = {}
    for name, config in MODELS.items():
        folders[name] = tmp_path_factory.mktemp(name)
        (folders[name] / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": TIED[name]}))
    return {name: str(folder) for name, folder in folders.items()}


@pytest.fixture(autouse=True)
def measured_once(monkeypatch):
    for module in (plan, fit):
        monkeypatch.setattr(module, "measure", measure_once)


measure_once = functools.cache(measure)


def on_gpu(name: str, models: dict[str, str], *overrides: str) -> DictConfig:
    config = compose("spo_trainer", overrides=[f"experiments={name}", "platform=gpu", *overrides])
    config.actor_rollout_ref.model.path = models[name.split("_")[0]]
    return config


def with_files(config: DictConfig, *files: str) -> DictConfig:
    """What the configuration becomes with these files chosen: composing it again takes a hundred times as long."""
    return OmegaConf.merge(config, *(OmegaConf.load(CONFIG / f"{file}.yaml") for file in files))


def estimate(config: DictConfig) -> MemoryEstimate:
    return plan.make_plan(config, check_settings(config)).memory


#: One of each model and method; the others take their time in `make test-slow`.
OFTEN = {"rho_gsm8k_chain_int5", "rho_gsm8k_ppo", "rho_math_tree_666", "r1_math_tree_666", "qwen05_gsm8k_tree_666"}


@pytest.mark.parametrize("name", [n if n in OFTEN else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_every_experiment_passes_its_checks_and_fits_by_the_estimate(name, models):
    plain = on_gpu(name, models)
    for hardware, card in CARDS.items():
        for lora in ((), ("lora/on",)):
            config = with_files(plain, f"hardware/{hardware}", *lora)
            memory = estimate(config)
            assert memory.fits(card, config.actor_rollout_ref.rollout.gpu_memory_utilization), (hardware, memory)
            assert config.actor_rollout_ref.actor.strategy == config.actor_rollout_ref.ref.strategy == "fsdp2"
            assert (config.actor_rollout_ref.model.lora_rank > 0) == bool(lora)
            for key in (
                "algorithm.spo",
                "data",
                "actor_rollout_ref.rollout.temperature",
                "actor_rollout_ref.actor.clip_ratio",
            ):
                assert OmegaConf.select(config, key) == OmegaConf.select(plain, key)  # what is learned stays


def test_the_files_are_chosen_on_the_command_line(models):
    for hardware in CARDS:
        chosen = on_gpu("rho_gsm8k_ppo", models, f"hardware={hardware}", "lora=on")
        merged = with_files(on_gpu("rho_gsm8k_ppo", models), f"hardware/{hardware}", "lora/on")
        assert OmegaConf.to_container(chosen, resolve=True) == OmegaConf.to_container(merged, resolve=True)
        assert chosen.critic.optim.lr == 1e-6 and chosen.actor_rollout_ref.actor.optim.lr == 1e-5


def test_a_card_of_24_gb_needs_what_its_file_sets(models):
    """Without offloading a model of 1.5 B does not fit, so the estimate can say no; the file's comment is right."""
    small, large = (with_files(on_gpu(n, models), "hardware/gpu_24gb") for n in ("rho_gsm8k_tree_666", "r1_math_grpo"))
    for config in (small, large):
        config.actor_rollout_ref.actor.fsdp_config.offload_policy = False
        config.actor_rollout_ref.actor.fsdp_config.optimizer_offload = True
    assert estimate(small).fits(24, 0.6) and not estimate(large).fits(24, 0.6)
    assert estimate(with_files(large, "lora/on")).fits(24, 0.6)


@pytest.mark.parametrize("name", ["rho_gsm8k_tree_666", "rho_gsm8k_chain_int5", "r1_math_tree_666", "r1_math_grpo"])
def test_the_papers_runs_divide_among_the_gpus_of_a_machine(name, models):
    config = on_gpu(name, models)
    for gpus in (2, 4, 8):
        config.trainer.n_gpus_per_node = gpus
        fit.check_machines(config, settings_of(config, config.data.max_response_length), gpus)


def test_a_gpus_settings_are_refused_on_the_cpu():
    with pytest.raises(SettingsError, match="hardware=gpu_24gb is for GPUs, and this machine runs on the CPU"):
        check_hardware_choice(["hardware=gpu_24gb"], cpu=True)
    check_hardware_choice(["hardware=gpu_24gb"], cpu=False)
    check_hardware_choice(["hardware=gpu_24gb", "platform=gpu"], cpu=True)
    check_hardware_choice(["data.seed=1"], cpu=True)


def test_several_machines_need_a_cluster_and_gpus(config):
    check_cluster(config, None)
    config.trainer.nnodes = 2
    check_cluster(config, "auto")
    with pytest.raises(PreflightError, match="trainer.nnodes is 2, but this process knows no Ray cluster: `ray start`"):
        check_cluster(config, None)
    config.trainer.device = "cpu"
    with pytest.raises(PreflightError, match="trainer.nnodes is 2: the CPU platform runs on one machine"):
        check_cluster(config, "auto")


def test_flash_attention_is_asked_for_only_where_it_is(config):
    with pytest.raises(PreflightError, match="attn_implementation is flash_attention_2, but flash-attn is not"):
        check_attention(config, flash_attention=False)  # verl's default
    check_attention(config, flash_attention=True)
    OmegaConf.update(config, "actor_rollout_ref.model.override_config", {"attn_implementation": "sdpa"}, force_add=True)
    check_attention(config, flash_attention=False)


def test_what_a_cluster_does_not_inherit_is_passed_on(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPO_PLATFORM", "gpu")
    monkeypatch.delenv("VERL_FILE_LOGGER_PATH", raising=False)
    assert variables_of_the_run() == {"SPO_PLATFORM": "gpu"}
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", "out/metrics.jsonl")
    assert variables_of_the_run()["VERL_FILE_LOGGER_PATH"] == str(tmp_path / "out/metrics.jsonl")
