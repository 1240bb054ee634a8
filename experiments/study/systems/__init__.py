"""The systems of `experiments.study`: what they are, in `rows`, and how each kind is run."""
