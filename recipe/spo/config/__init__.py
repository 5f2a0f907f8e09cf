"""Hydra configuration of SPO, composed on top of verl's `ppo_trainer`."""
