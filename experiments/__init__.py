"""Questions about the package, each answered by `python -m experiments.NAME`.

An experiment is a module, or a package whose `__main__` measures and whose `report` writes tables
and figures. Its results (JSON, tables, figure) are committed in the folder `results` next to its
code: `experiments/results` for a module, `experiments/NAME/results` for a package; `tables` and
`figures` write them.
"""
