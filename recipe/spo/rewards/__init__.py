"""Rewards: graders of responses, one file a task; `score` is verl's entry to all of them."""
