"""Questions asked of the package; each file is one, its answer is committed in results/."""
