"""A functional JAX lab for small-image classification."""
