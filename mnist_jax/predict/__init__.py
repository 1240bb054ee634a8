"""Predictions for your own pictures: `python -m mnist_jax.predict`."""
