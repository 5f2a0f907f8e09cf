"""verl's TransferQueue agent-loop worker as a plain class, to subclass.

verl 0.9.1 publishes it as a Ray actor class only, which Ray refuses to subclass.
Needless when: verl decorates the class where it creates the actors.
"""

from __future__ import annotations

from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

AgentLoopWorkerBase: type = AgentLoopWorkerTQ.__ray_metadata__.modified_class.__ray_actor_class__
