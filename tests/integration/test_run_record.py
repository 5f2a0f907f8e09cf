"""The composed configuration of a real run, written down and read back."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("method", ["tree", "chain", "ppo"])
def test_a_composed_configuration_is_recorded_as_it_is_and_resumed(tmp_path, method, capsys):
    import verl  # noqa: F401  # its configurations are on Hydra's search path; loads our plug-in's resolver
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    from recipe.spo.parsing import settings_of
    from recipe.spo.plugin import register_resolver
    from recipe.spo.preflight import check_keeping
    from recipe.spo.run_record import check_resume, read_config, record_run

    register_resolver()
    overrides = [
        f"method={method}",
        f"trainer.default_local_dir={tmp_path}",
        "actor_rollout_ref.model.path=owner/model",
    ]
    with initialize_config_module("recipe.spo.config", version_base=None):
        config = compose(
            "spo_trainer", overrides=[*overrides, "data.train_files=a.parquet", "data.val_files=b.parquet"]
        )
    check_keeping(config, settings_of(config, config.data.max_response_length))
    record_run(config)
    expected = OmegaConf.to_container(config, resolve=True)
    found = read_config(tmp_path)
    for content in (expected, found):
        content["ray_kwargs"]["ray_init"].pop("runtime_env", None)
    assert found == expected
    assert found["trainer"]["save_freq"] == 50 and found["algorithm"]["spo"]["keep_best"] is True

    (tmp_path / "global_step_3").mkdir()
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("3")
    assert check_resume(config) == 3
    assert capsys.readouterr().out == f"resuming from {tmp_path}/global_step_3\n"  # nothing has changed
