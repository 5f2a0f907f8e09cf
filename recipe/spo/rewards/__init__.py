"""Rewards: one file a task, each with verl's `compute_score`."""
