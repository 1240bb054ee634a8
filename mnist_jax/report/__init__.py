"""Plots and pages, from data to HTML."""
