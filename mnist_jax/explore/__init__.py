"""A data set on one page: `python -m mnist_jax.explore`."""
