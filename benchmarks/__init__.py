"""Measured claims: each script measures both sides in one run and ends with `ratio: N.NN`."""
