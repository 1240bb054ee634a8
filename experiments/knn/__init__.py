"""Nearest neighbours: accuracy and speed."""
