"""Evaluation of a policy: sample through vLLM, grade with the graders of training, count, compare.

`sampling` is the only file that knows vLLM. A run is a folder (`store`) that the same command
completes after an interruption; what is in it depends on its fingerprint and on nothing else.
"""
