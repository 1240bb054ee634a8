"""Questions asked of the package; each answer is committed in results/ as JSON, table and figure.

The questions: `baselines`, `speed`, `time_to_accuracy`, `scaling`. What they are made of: `tables`
and `figures` write answers down; `peers` and `recipes` are the same work in other people's hands,
done in processes of their own by `worker` and `timed_run`; `scaling_point` is ours at one size.
"""
