"""Comparison of finished runs: `python -m mnist_jax.compare`."""
