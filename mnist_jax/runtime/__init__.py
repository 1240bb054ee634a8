"""Processes and devices: keys, compilation, sharding, several hosts, provenance, progress."""
