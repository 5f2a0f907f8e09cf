"""Learning curves of all methods at equal generated tokens: `make bench-learning`, or `python -m benchmarks.learning`.

`plan` says which runs there are and how one is started, `rates` which learning rate each method gets, `store` what
stands in a run's folder, `running` does the runs, `results` reads them, `numbers` has the statistics, `report` writes
tables, sentences and pictures, `publish` the small copy for a repository.
"""
