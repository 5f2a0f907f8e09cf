"""Classes that verl 0.9.1 publishes as Ray actors only, as plain classes to subclass.

Ray refuses to subclass an actor class. Needless when: verl decorates the classes where it creates
the actors.
"""

from __future__ import annotations

from typing import Any


def plain_class(actor_class: Any) -> type:
    """The class that `ray.remote` was applied to. A subclass must define an `__init__` of its own."""
    return actor_class.__ray_metadata__.modified_class.__ray_actor_class__
