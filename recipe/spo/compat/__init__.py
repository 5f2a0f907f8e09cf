"""Everything that touches private parts of verl, vLLM or Ray, and the platform for CPU-only machines.

Each patch says what it is for and what would make it needless; the next release of verl or vLLM is
work in this folder. Importing it changes nothing: `recipe.spo.plugin` decides what is applied.
"""
