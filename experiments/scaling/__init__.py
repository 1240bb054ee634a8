"""Scaling of an epoch with data, batch size, parameters and trials."""
