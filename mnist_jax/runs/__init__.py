"""The host side of a run: which trials it has, the loop, selection, summary."""
