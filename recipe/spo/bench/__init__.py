"""The value bench: how accurate each method's credit is for the tokens it generates.

References (`truth`) are responses of the policy. Their states have a ground truth from many fresh continuations.
Every method's rollout is grown by the code of training *through* these references (`following`), which are fair draws
of the policy like any other sample, so that all methods estimate the same states. `accuracy` compares, `intervals` and
`levels` say how sure that is and how far two methods are apart, `gradients` looks at the policy gradient that the
credit makes. `store` and `chunks` keep what was sampled. `vllm_client` is the only file that knows vLLM,
`policy_gradient` the only one that knows torch; everything else also runs on a policy of a few lines
(tests/unit/test_bench.py).
"""
