"""The run directory: its files, checkpoints and TensorBoard events."""
