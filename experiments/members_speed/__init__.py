"""Speed of many trials together."""
