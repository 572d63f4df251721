"""The commands of `memgpt-jax`, one module each; `experiments/NAME.py` runs the same `main`."""
