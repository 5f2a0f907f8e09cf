"""Machines and models that a run does not fit, told apart before anything is downloaded or started."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from recipe.spo.fit import check_machines, check_model, fetch_config, longest_row
from recipe.spo.lora import LoraError, adapted_modules, adapter_parameters
from recipe.spo.model_shape import ModelShapeError, local_config, measure
from recipe.spo.parsing import settings_of
from recipe.spo.preflight import PreflightError, check_run
from recipe.spo.schedule import ContextSchedule, Stage
from tests.unit.test_preflight import FIXED

ROLLOUT = "actor_rollout_ref.rollout"
TENSOR_PARALLEL = f"{ROLLOUT}.tensor_model_parallel_size"

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 2,
    "vocab_size": 50,
    "max_position_embeddings": 200,
    "tie_word_embeddings": False,
}
GPT2 = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2}


def machines(config, gpus=None, **changes):
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    check_machines(config, settings_of(config, config.data.max_response_length), gpus)


def nodes(per_node: int, number: int = 1) -> dict[str, int]:
    return {"trainer.n_gpus_per_node": per_node, "trainer.nnodes": number}


@pytest.mark.parametrize(
    ("changes", "gpus", "message"),
    [
        (nodes(8), 4, "trainer.n_gpus_per_node is 8, but this machine has 4 GPUs .* set it to 4 or less"),
        (nodes(1), 0, "trainer.n_gpus_per_node is 1, but this machine has no GPUs .* set platform=cpu"),
        ({**nodes(8), TENSOR_PARALLEL: 3}, 8, "tensor_model_parallel_size=3 .* does not divide the 8 GPUs"),
        ({**nodes(2), TENSOR_PARALLEL: 4}, None, "tensor_model_parallel_size=4 .* does not divide the 2 GPUs"),
        ({**nodes(4, 3), TENSOR_PARALLEL: 6}, None, "does not divide the 12 GPUs"),  # half a machine
        ({**nodes(4), TENSOR_PARALLEL: 2, f"{ROLLOUT}.data_parallel_size": 4}, None, "8 GPUs a server"),
        (
            {**nodes(4), "actor_rollout_ref.actor.ulysses_sequence_parallel_size": 3},
            None,
            "ulysses.*=3 does not divide",
        ),
        (
            {**nodes(3), "algorithm.spo.replay.rows_per_step": 512},
            None,
            "rows_per_step=512 does not divide into optimizer_steps=4 batches over 3 ranks: use a multiple of 12, "
            "such as 504",
        ),
        ({**FIXED, "algorithm.spo.replay.rows_per_step": 48}, None, "over 1 ranks in micro-batches of 8: .* of 32"),
        ({**FIXED, **nodes(3), "data.train_batch_size": 4}, None, "train_batch_size=4 does not divide among 3 ranks"),
    ],
)
def test_what_does_not_divide_is_refused(config, changes, gpus, message):
    with pytest.raises(PreflightError, match=message):
        machines(config, gpus, **changes)


@pytest.mark.parametrize(
    ("changes", "gpus"),
    [
        ({**nodes(8), TENSOR_PARALLEL: 4}, 8),
        ({**nodes(4, 2), TENSOR_PARALLEL: 8}, None),
        ({**nodes(4), "actor_rollout_ref.actor.ulysses_sequence_parallel_size": 2}, 8),
        ({**nodes(8), "algorithm.spo.replay.rows_per_step": 512}, None),
        # Sequence parallelism: two GPUs see the same rows.
        (
            {
                **nodes(6),
                "actor_rollout_ref.actor.ulysses_sequence_parallel_size": 2,
                "algorithm.spo.replay.rows_per_step": 12,
            },
            None,
        ),
    ],
)
def test_what_divides_passes(config, changes, gpus):
    machines(config, gpus, **changes)


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (LLAMA, {"data.max_response_length": 185}, "= 201 is more than the model's context of 200 tokens"),
        (LLAMA, {TENSOR_PARALLEL: 4}, "=4 does not divide the model's 6 attention heads: use one of 1, 2, 3, 6"),
        ({"text_config": LLAMA}, {TENSOR_PARALLEL: 4}, "does not divide the model's 6 attention heads"),
        ("{", {}, "model.path: .*config.json cannot be read"),
        ("[]", {}, "model.path: .*config.json holds no JSON object"),
        (GPT2, {"actor_rollout_ref.model.lora_rank": 8}, "lora_rank is 8: GPT2LMHeadModel has no linear layers"),
        (
            LLAMA,
            {"actor_rollout_ref.model.lora_rank": 8, "actor_rollout_ref.model.target_modules": ["q_proj", "c_attn"]},
            "has no linear layer 'c_attn'; there are down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj",
        ),
        ({"model_type": "no-such-model"}, {"actor_rollout_ref.model.lora_rank": 8}, "lora_rank is 8: transformers can"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(config, folder, content, changes, message):
    config.actor_rollout_ref.model.path = str(folder(content))
    for key, value in changes.items():
        OmegaConf.update(config, key, value)
    with pytest.raises(PreflightError, match=message):
        check_model(config)


def test_a_model_that_fits_passes_and_an_unknown_one_is_left_to_the_download(config, folder):
    config.actor_rollout_ref.model.path = str(folder(LLAMA))
    config.data.max_response_length = 184
    OmegaConf.update(config, TENSOR_PARALLEL, 3)
    config.actor_rollout_ref.model.lora_rank = 8
    check_model(config)
    config.actor_rollout_ref.model.path = "nobody/has-this-model"
    check_model(config)


def test_an_override_of_the_models_config_counts(config, folder):
    config.actor_rollout_ref.model.path = str(folder(LLAMA))
    config.data.max_response_length = 300
    OmegaConf.update(
        config, "actor_rollout_ref.model.override_config", {"max_position_embeddings": 400}, force_add=True
    )
    check_model(config)


def test_the_checks_are_part_of_every_start_and_come_before_data_and_tokenizer(config):
    config.data.train_files, config.actor_rollout_ref.model.path = "nothing.parquet", "nobody/has-this-model"
    config.trainer.n_gpus_per_node = 2
    with pytest.raises(PreflightError, match="this machine has 1 GPUs"):
        check_run(config, gpus=1)


def test_the_model_is_part_of_every_start(config, folder):
    config.data.train_files, config.actor_rollout_ref.model.path = "nothing.parquet", str(folder(LLAMA))
    config.data.max_response_length = 185
    with pytest.raises(PreflightError, match="more than the model's context of 200 tokens"):
        check_run(config)


def test_only_what_is_here_is_looked_at(folder, monkeypatch):
    import socket

    def offline(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", offline)
    assert local_config("nobody/has-this-model") is None
    assert local_config(str(folder(LLAMA))).name == "config.json"
    assert local_config("./no-such-folder") is None


def test_a_model_is_counted_by_hand(folder):
    shape = measure(folder(LLAMA))
    # q, k, v, o; gate, up, down; two norms
    layer = 12 * 12 + 2 * 12 * 4 + 12 * 12 + 3 * 12 * 20 + 2 * 12
    assert (shape.architecture, shape.layers, shape.layer_parameters) == ("LlamaForCausalLM", 3, layer)
    assert shape.parameters == 3 * layer + 2 * 50 * 12 + 12
    assert shape.parameters_outside_layers == 2 * 50 * 12 + 12
    assert len(shape.linear_modules) == 21 and "lm_head" not in shape.linear_modules


def test_lora_adapts_what_peft_would(folder):
    shape = measure(folder(LLAMA))
    assert len(adapted_modules(shape, "all-linear")) == 21
    assert len(adapted_modules(shape, ["q_proj", "layers.1.mlp.up_proj"])) == 3 + 1
    assert len(adapted_modules(shape, r".*\.(q|v)_proj")) == 6
    assert adapter_parameters(shape, ["q_proj"], rank=4) == 3 * 4 * (12 + 12)
    with pytest.raises(LoraError, match="no linear layer of LlamaForCausalLM matches 'q_proj'"):
        adapted_modules(shape, "q_proj")  # a string is a pattern for the whole name


def test_an_unknown_model_cannot_be_measured(folder):
    with pytest.raises(ModelShapeError, match="transformers cannot build the model"):
        measure(folder({"model_type": "no-such-model"}))


def test_a_row_is_as_long_as_the_limits_or_the_longest_stage_allow():
    data = OmegaConf.create({"max_prompt_length": 200, "max_response_length": 4095})
    assert longest_row(data, None)[0] == 4295
    stages = ContextSchedule((Stage(1, 2048), Stage(10, 4096)))
    assert longest_row(data, stages) == (4096, "the longest context of algorithm.spo.context_schedule")
    assert longest_row(data, ContextSchedule((Stage(1, 5000),)))[0] == 4295


def test_a_hub_ids_configuration_is_fetched_before_anything_larger(folder, monkeypatch):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *names: asked.append(names))
    fetch_config(str(folder(LLAMA)))  # it is here
    fetch_config("nobody/has-this-model")
    assert asked == [("nobody/has-this-model", "config.json")]

    def refused(*names):
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refused)
    with pytest.raises(PreflightError, match=r"model.path: nobody/has-this-model has no config.json .*offline"):
        fetch_config("nobody/has-this-model")
