"""Metrics and statistics of predictions: pure functions of logits, labels and images."""
