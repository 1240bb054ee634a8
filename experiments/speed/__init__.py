"""Speed compared with PyTorch, Keras and plain JAX."""
