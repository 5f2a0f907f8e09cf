"""verl's task runner with SPO's trainer registered in its process.

verl 0.9.1 publishes `TaskRunnerV1` as a Ray actor class only, which Ray refuses to subclass.
Needless when: verl decorates the class where it creates the actor, or takes a trainer by its name.
"""

from __future__ import annotations

from typing import Any


def spo_task_runner() -> Any:
    """Ray actor class for `verl.trainer.main_ppo.run_ppo`."""
    import ray
    from verl.trainer.main_ppo import TaskRunnerV1

    base: type = TaskRunnerV1.__ray_metadata__.modified_class.__ray_actor_class__

    class SPOTaskRunner(base):
        def __init__(self) -> None:  # Ray pickles subclasses right only if they define one
            super().__init__()

        def run(self, config: Any) -> None:
            import recipe.spo.trainer  # noqa: F401  # registers itself as spo_sync

            super().run(config)

    return ray.remote(SPOTaskRunner)
