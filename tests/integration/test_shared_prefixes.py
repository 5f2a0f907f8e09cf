"""verl's real FSDP2 engine with shared prefixes computed once, against verl's own path on the same rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration import torchrun

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Of a model with random weights, and a tokenizer for verl to load."""
    from recipe.spo.tiny_policy.tokenizer import build_tokenizer
    from tests.models import small_model

    def save(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        tokenizer = build_tokenizer(["A farmer has 12 apples and gives 5 away. 12 - 5 = 7"], 256)
        small_model(kind, vocabulary=len(tokenizer)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.mark.parametrize("mode", ["on", "auto"])
def test_the_configuration_suits_every_process_of_verl(mode):
    """Actor and reference instantiate it; vLLM's server makes verl's own class of the same node."""
    import verl  # noqa: F401  # loads the plug-in, and with it the CPU platform
    from hydra import compose, initialize_config_module
    from hydra.utils import get_class
    from omegaconf import OmegaConf
    from verl.workers.config import HFModelConfig

    from recipe.spo.compat.shared_model import share_prefixes

    with initialize_config_module("recipe.spo.config", version_base=None):
        config = compose("spo_trainer")
    share_prefixes(config, mode)
    node = OmegaConf.to_container(config.actor_rollout_ref.model, resolve=True)
    theirs = get_class(node["_target_"])
    assert issubclass(theirs, HFModelConfig) and theirs.share_prefixes == mode
    assert OmegaConf.merge(OmegaConf.structured(HFModelConfig), node).path == node["path"]


def results_of(model, ranks: int, *overrides: str) -> list[dict]:
    return torchrun.results_of(
        "tests.integration.shared_child", model, ranks, *overrides, timeout=600, OMP_NUM_THREADS="1"
    )


def assert_equal(differences: dict[str, float]) -> None:
    assert {"log_probs", "entropy", "loss", "grad_norm"} < set(differences) and len(differences) > 20
    assert max(differences.values()) <= 1e-5, sorted(differences.items(), key=lambda item: -item[1])[:3]


GPU_LIKE = [
    "actor_rollout_ref.model.enable_gradient_checkpointing=true",
    "actor_rollout_ref.model.use_remove_padding=true",
]


@pytest.mark.parametrize(
    ("model", "ranks", "overrides"),
    [
        ("llama", 1, []),
        pytest.param("qwen2", 2, GPU_LIKE, marks=pytest.mark.slow),
        pytest.param("llama", 2, GPU_LIKE, marks=pytest.mark.slow),
        pytest.param("qwen2", 1, [], marks=pytest.mark.slow),
    ],
)
def test_sharing_changes_neither_log_probs_nor_entropy_nor_loss_nor_any_gradient(
    model, ranks, overrides, folder_of, capsys
):
    """Two trees, a row twice, a prefix of others and padding; micro-batches: the cheapest, of six rows, of two."""
    *results, refused = results_of(folder_of(model), ranks, *overrides)

    # The checks stop the first pass, or the first update; those of packed rows only where rows are packed.
    said = refused["refused"]
    assert set(said) == {"mask", "gradient"} | ({"rows"} if overrides else set())
    assert "does not attend by the mask" in said["mask"] and "backward pass is wrong" in said["gradient"]
    assert all("share_prefixes=off" in each for each in said.values())
    assert "packed rows" in said.get("rows", "packed rows")

    shared = [result for result in results if "differences" in result]
    assert len(shared) == 6
    for result in shared:
        assert abs(result["loss"]) > 1e-3  # there is something to agree on
        assert_equal(result["differences"])
        counts = result["metrics"]
        assert counts["spo_share_update_computed"] < counts["spo_share_update_tokens"]
        assert counts["spo_share_update_plain"] == 0
        assert 0 < counts["spo_share_check_difference"] < 1e-3
        assert not result["verls_metrics"]  # without sharing nothing is counted, and verl's engine computes
    assert len({result["micro_batches"][0] for result in shared}) == 3  # so these are three ways to cut

    # In an update the head is computed where a token trains, and nowhere else; padded rows are verl's own.
    for result in results:
        computed, needed = zip(*result["heads"], strict=True) if result["heads"] else ((), ())
        assert computed == needed
        assert computed or (result["mode"] == "auto" and "apart" in result and not overrides)

    # Nothing is silent: what was chosen, and that both ways agree.
    log = capsys.readouterr().out
    assert log.count("share_prefixes=auto: rows are computed one by one in the first pass") == 1 + ("rows" in said)
    assert log.count("share_prefixes=on: prefixes that rows share are computed once in the first pass") >= 1
    assert log.count("some rows were computed in both ways; log-probs differ by at most") >= 4

    # Rows that share nothing: `auto` computes them one by one and says so.
    for result in results:
        if "apart" in result:
            assert_equal(result["apart"])
            plain = result["metrics"]["spo_share_update_plain"]
            assert plain == (result["metrics"]["spo_share_update_tokens"] if result["mode"] == "auto" else 0)
