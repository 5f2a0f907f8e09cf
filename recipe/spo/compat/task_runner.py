"""verl's task runner with SPO's trainer registered in its process.

Needless when: verl takes a trainer by its qualified name.
"""

from __future__ import annotations

from typing import Any


def spo_task_runner() -> Any:
    """Ray actor class for `verl.trainer.main_ppo.run_ppo`."""
    import ray
    from verl.trainer.main_ppo import TaskRunnerV1

    from recipe.spo.compat.ray_actors import plain_class

    class SPOTaskRunner(plain_class(TaskRunnerV1)):
        def __init__(self) -> None:  # Ray pickles subclasses right only if they define one
            super().__init__()

        def run(self, config: Any) -> None:
            import recipe.spo.trainer  # noqa: F401  # registers itself as spo_sync

            super().run(config)

    return ray.remote(SPOTaskRunner)
