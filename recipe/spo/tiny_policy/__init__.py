"""A policy of under a million parameters that is right some of the time: where the CPU demo starts.

A small Llama is fitted from scratch on the worked solutions of a prepared data set and stopped
early, so that reinforcement learning finds both right and wrong answers to learn from. The result
is an ordinary Hugging Face folder in float32. `python -m recipe.spo.tiny_policy --help` tells how.
"""
