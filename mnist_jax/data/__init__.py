"""Data sets, their splits, and what is done to their images."""
