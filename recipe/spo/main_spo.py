"""Train with SPO: `python -m recipe.spo.main_spo [verl's Hydra overrides]`.

Checks everything that can be checked, prints what is about to happen, and hands over to verl.
Exit codes: 0 done, 2 wrong input (one line says what), 130 interrupted, 1 anything else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from importlib.util import find_spec
from typing import NoReturn

from omegaconf import DictConfig, OmegaConf, open_dict

from recipe.spo.compat.machine import PLATFORM_VARIABLE, is_cpu_machine, platform_name
from recipe.spo.compat.versions import VersionError, check_verl_version
from recipe.spo.reader import SettingsError
from recipe.spo.settings import (
    ChainSettings,
    GroupSettings,
    ReplaySettings,
    SPOSettings,
    TreeSettings,
)

#: Where verl's `file` tracker writes.
LOG_VARIABLE = "VERL_FILE_LOGGER_PATH"
NODES = {
    "": SPOSettings,
    ".tree": TreeSettings,
    ".chain": ChainSettings,
    ".group": GroupSettings,
    ".replay": ReplaySettings,
}


def refuse(message: object) -> NoReturn:
    """Say in one line what is wrong and leave with exit code 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def main() -> None:
    """Entry point: check, compose the configuration, run."""
    start(run)


def start(task: Callable[[DictConfig], None]) -> None:
    """Check the command line and the installation, compose the configuration, and hand it to `task`."""
    from recipe.spo.overrides import check_hardware_choice, check_override_names

    try:
        check_verl_version()
        check_hardware_choice(sys.argv[1:], is_cpu_machine())
        check_override_names(
            sys.argv[1:],
            {f"algorithm.spo{node}": [f.name for f in fields(settings)] for node, settings in NODES.items()},
        )
    except (VersionError, SettingsError) as error:
        refuse(error)
    if is_cpu_machine():
        from recipe.spo.compat.verl_cpu import prepare_environment

        prepare_environment()

    check_plugin()

    import hydra

    hydra.main(config_path="config", config_name="spo_trainer", version_base=None)(task)()


def check_plugin() -> None:
    """Refuse to start unless verl itself loads our plug-in, as it must in every process of the run."""
    import verl  # noqa: F401  # loads the entry points

    # Looked at before this process imports the plug-in on its own account.
    loaded = "recipe.spo.plugin" in sys.modules
    from recipe.spo.plugin import missing_registrations

    missing = missing_registrations()
    if not loaded or missing:
        what = ", ".join(missing) or "entry point 'spo' of group 'verl.plugins'"
        refuse(
            f"verl did not load the plug-in of recipe.spo ({what} is missing): install the package into this "
            "environment (`make setup` or `pip install -e .`) and leave VERL_USE_EXTERNAL_PLUGINS unset"
        )


def run(config: DictConfig) -> None:
    """Run a composed configuration from checks to the end of training."""
    from hydra.errors import InstantiationException
    from verl.trainer.main_ppo import run_ppo
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config
    from verl.utils.device import auto_set_device

    from recipe.spo.checkpoints import CheckpointError
    from recipe.spo.compat.processes import RUN_ID_VARIABLE, owned_run
    from recipe.spo.compat.task_runner import spo_task_runner
    from recipe.spo.fit import check_attention, check_cluster
    from recipe.spo.json_files import JsonError
    from recipe.spo.plan import make_plan
    from recipe.spo.plan_table import print_plan
    from recipe.spo.preflight import PreflightError, check_run
    from recipe.spo.run_record import check_resume, record_run

    if is_cpu_machine():
        print("SPO: no GPU on this machine, running on the CPU (recipe/spo/compat/platform_cpu.py)", flush=True)
    try:
        check_cluster(config, cluster_address(config))
        check_attention(config, flash_attention=find_spec("flash_attn") is not None)
        settings = check_run(config, gpus=usable_gpus(config))
    except (PreflightError, SettingsError) as error:
        refuse(error)
    auto_set_device(config)
    try:
        validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    except (AssertionError, ValueError, InstantiationException) as error:
        refuse(f"verl refuses the configuration: {error}")
    loss = config.actor_rollout_ref.actor.policy_loss.loss_mode
    if loss not in POLICY_LOSS_REGISTRY:
        refuse(
            f"actor_rollout_ref.actor.policy_loss.loss_mode is {loss!r}: choose one of "
            f"{', '.join(sorted(POLICY_LOSS_REGISTRY))}"
        )
    if settings.normalize == "micro_batch":
        from recipe.spo.algorithm import policy_loss_name

        config.actor_rollout_ref.actor.policy_loss.loss_mode = policy_loss_name(
            settings.normalize, settings.as_published_code
        )
    if settings.share_prefixes != "off":
        from recipe.spo.compat.shared_model import share_prefixes

        share_prefixes(config, settings.share_prefixes)
    set_variables(config, variables_of_the_run())
    try:
        check_resume(config)
        print_plan(config, settings, make_plan(config, settings))
        record_run(config)
    except (CheckpointError, JsonError, PreflightError) as error:
        refuse(error)
    with owned_run() as run_id:
        set_variables(config, {RUN_ID_VARIABLE: run_id})  # not recorded: every start has another
        run_ppo(config, task_runner_class=spo_task_runner())


def set_variables(config: DictConfig, variables: Mapping[str, str]) -> None:
    """Give every process of the run environment variables, those on other machines too."""
    with open_dict(config):
        for name, value in variables.items():
            OmegaConf.update(config, f"ray_kwargs.ray_init.runtime_env.env_vars.{name}", value)


def variables_of_the_run() -> dict[str, str]:
    """Environment of every process of the run: in a cluster they do not inherit this one's."""
    variables = {PLATFORM_VARIABLE: platform_name()}  # what the driver found holds for every machine
    if os.environ.get(LOG_VARIABLE):
        variables[LOG_VARIABLE] = os.path.abspath(os.environ[LOG_VARIABLE])
    return variables


def cluster_address(config: DictConfig) -> str | None:
    """Where Ray will find a cluster; `None`: it will start one on this machine."""
    return os.environ.get("RAY_ADDRESS") or OmegaConf.select(config, "ray_kwargs.ray_init.address")


def usable_gpus(config: DictConfig) -> int | None:
    """GPUs of this machine; `None` where they do not limit the run: on the CPU, or in a cluster."""
    if config.trainer.device == "cpu" or config.trainer.nnodes != 1 or cluster_address(config):
        return None
    from verl.utils.device import get_torch_device

    return get_torch_device().device_count()


if __name__ == "__main__":
    main()
