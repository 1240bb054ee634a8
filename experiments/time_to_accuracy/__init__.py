"""Seconds to a given accuracy, for our configs and published recipes."""
