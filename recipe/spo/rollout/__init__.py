"""Growing trees through verl's rollout servers: the edge between the pure core and verl."""
