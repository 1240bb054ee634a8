"""How accurate and how fast are nearest neighbours?

    python -m experiments.knn [--only NAME ...] [--quick]

The search is exact. k, weights and preprocessing are chosen by five-fold cross-validation on the
training images; the test split is read once. Finished rows are kept in runs/knn and not repeated;
published rows stay until a new one replaces them. `--quick` runs all rows on scikit-learn's digits
and writes nothing.
"""

import sys
from pathlib import Path

from tqdm import tqdm

from experiments import tables
from experiments.knn import report
from experiments.knn.rows import ROWS, Row
from mnist_jax.data import datasets
from mnist_jax.types import UserError
from mnist_jax.workdir import files

RUNS = Path("runs/knn")


def finish(name: str, dataset: str | None = None) -> Row:
    """Measure a row and return it with its origin.

    Raises:
      UserError: the data is not available.
    """
    own, do = ROWS[name]
    found = datasets.load(dataset or own)
    row = {"data": found.name, **do(found), **tables.origin("experiments.knn")}
    row.pop("decided", None)
    return row


def main() -> int:
    """Measure what is missing and write the results; return the exit code."""
    parser = tables.parser("knn", __doc__)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), help="these rows")
    parser.add_argument("--quick", action="store_true", help="on digits; nothing is written")
    options = parser.parse_args()
    rows = {}
    try:
        for name in tqdm(options.only, unit="row"):
            path = RUNS / f"{name}.json"
            if options.quick:
                rows[name] = finish(name, "digits")
            elif path.exists():
                rows[name] = files.read_json(path)
            else:
                rows[name] = finish(name)
                RUNS.mkdir(parents=True, exist_ok=True)
                files.write(path, files.to_json(rows[name]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.quick:
        print(tables.page(rows, report.TABLES))
        return 0
    merged = tables.read("knn") | rows
    tables.publish("knn", {name: merged[name] for name in ROWS if name in merged}, report.TABLES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
