"""Networks as pure functions, and the convolutions that make them fast on a CPU."""
