"""Pictures and tables from result files: `python -m recipe.spo.plots curves|table`.

`runs` reads training logs as points, `band` averages seeds, `draw` draws; `results` reads evaluation
results, `table` lays them out, `published` holds the paper's numbers.
"""
