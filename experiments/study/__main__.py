"""Every system of five earlier studies of MNIST and Fashion-MNIST, reproduced and beaten.

    python -m experiments.study                       # all rows that are not finished yet
    python -m experiments.study --only knn_grid sgd   # some of them
    python -m experiments.study --skip cnn_6x6_3x3    # all but one that takes hours
    python -m experiments.study --quick               # on digits: does all of it work?

Finished rows are kept in runs/study and not repeated; published rows stay until a new one replaces
them. study.html in that folder shows nets, learning curves and confusion matrices. A row that fails
is reported, the others still run, and the next call retries it. Every choice was made on validation
data or out of fold, and each run reads the test split once; the tables name the choices that have
seen the images that score them. `experiments.study.rows` lists the rows.
"""

import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments import tables
from experiments.study import page, report
from experiments.study.row import PARTS, Outcome, Row, Settings, on_digits
from mnist_jax.analysis import stats
from mnist_jax.report import run_page
from mnist_jax.runtime import progress, provenance, xla
from mnist_jax.workdir import files

DEFAULT = Path("runs/study")
# Minutes on 2 cores, for the progress bar; a row that is not listed takes 1.
MINUTES = {
    "by_hand": 4,
    "mlp_512_256": 2,
    "cnn_2x2_32": 12,
    "knn_fashion": 2,
    "mlp_400_200_100": 5,
    "cnn_6x6_3x3": 250,
    "a_5": 4,
    "svm_ovo": 7,
    "svm_ovr": 4,
    "denoise": 6,
    "knn_grid": 2,
    "cnn_5x5_3x3": 15,
    "cnn_5x5_3x3_small": 4,
    "cnn_augmented": 12,
    "forest": 2,
    "svc": 4,
}


def finished(row: Row, settings: Settings) -> bool:
    """Return True if the folder has the results of a row, with enough seeds."""
    path = _path(row, settings)
    return path.exists() and files.read_json(path)["seeds"] >= settings.seeds


def run(row: Row, settings: Settings) -> dict[str, Any]:
    """Return the results of a row, ready for JSON; a finished row is read from the folder."""
    path = _path(row, settings)
    if finished(row, settings):
        return files.read_json(path)
    outcomes = {part: (system := getattr(row, part)) and system(settings) for part in PARTS}
    found = {
        "name": row.name,
        "seeds": settings.seeds,
        "device": provenance.device(),
        "git_revision": provenance.git_revision(),
        **{part: outcome and _as_json(outcome) for part, outcome in outcomes.items()},
        "gain": _gain(outcomes["reproduced"], outcomes["best"], _limits(row)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, files.to_json(found))
    return found


def _path(row: Row, settings: Settings) -> Path:
    revision = f".{row.revision}" if row.revision > 1 else ""
    return settings.folder / "rows" / f"{row.name}{revision}.json"


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "values": list(outcome.values),
        "seconds": outcome.seconds,
        "facts": dict(outcome.facts),
        "shown": dict(outcome.shown),
    }


def _gain(
    reproduced: Outcome | None, best: Outcome | None, limits: stats.Limits
) -> dict[str, Any] | None:
    """Return the gain of ours, paired by seed or fold, or by example if one has neither."""
    if reproduced is None or best is None:
        return None
    a, b = reproduced.values, best.values
    alone = min(len(a), len(b)) == 1
    if alone and reproduced.examples is not None and best.examples is not None:
        a, b = reproduced.examples, best.examples
    # A system without seeds is paired with every seed of the other.
    a, b = (list(x) * max(len(a), len(b)) if len(x) == 1 else x for x in (a, b))
    folds = range(len(a)) if reproduced.of_folds and best.of_folds else None
    return stats.paired(a, b, folds, limits)._asdict() if len(a) == len(b) > 1 else None


def _limits(row: Row) -> stats.Limits:
    return (0.0, 100.0) if "%" in row.metric else stats.UNLIMITED


def quoted(row: Row) -> dict[str, Any]:
    """Return what a row quotes from its study."""
    keys = ("name", "study", "data", "system", "metric", "theirs", "their_seconds", "note")
    return {key: getattr(row, key) for key in keys}


def describe(row: Row, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the published results: what the study reports and what was measured here."""
    described = quoted(row)
    described |= {key: found[key] for key in ("device", "git_revision", "gain")}
    described["seen"] = row.seen
    described["constant"] = _constant(found["reproduced"]) if "accuracy" in row.metric else None
    for part in PARTS:
        outcome = found[part]
        described[part] = outcome and {
            **{key: outcome[key] for key in ("values", "seconds", "facts")},
            "described": stats.describe(outcome["values"], limits=_limits(row))._asdict(),
        }
    return described


def _constant(outcome: Mapping[str, Any] | None) -> float | None:
    """Return the accuracy of always answering the most frequent class, in percent."""
    if outcome is None or "confusion" not in outcome["shown"]:
        return None
    matrix, classes = (outcome["shown"][key] for key in ("confusion", "classes"))
    found = run_page.majority(np.asarray(matrix), classes)
    return found and 100 * found[1]


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing and write the results; return 1 if a row failed, 128 + n at signal n."""
    # Otherwise waiting threads spin, and boosting is many times slower on busy cores. Read when
    # scikit-learn is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from experiments.study import rows as all_rows  # takes seconds

    names = [row.name for row in all_rows.ROWS]
    parser = tables.parser("study", __doc__)
    which = parser.add_mutually_exclusive_group()
    rows_of: dict[str, Any] = {"nargs": "+", "choices": names, "metavar": "ROW", "default": []}
    which.add_argument("--only", help=", ".join(names), **rows_of)
    which.add_argument("--skip", help="all but these; cnn_6x6_3x3 takes hours", **rows_of)
    parser.add_argument("--quick", action="store_true", help="on digits, an epoch, a seed")
    parser.add_argument("--seeds", type=int, default=3, help="of each net (default: 3)")
    parser.add_argument("--folder", type=Path, help=f"of the runs (default: {DEFAULT})")
    options = parser.parse_args(argv)
    folder = options.folder or (DEFAULT / "quick" if options.quick else DEFAULT)
    settings = Settings(folder, 1 if options.quick else options.seeds, options.quick)
    known = [on_digits(row) if options.quick else row for row in all_rows.ROWS]
    asked = set(options.only or names) - set(options.skip)
    chosen = [row for row in known if row.name in asked]
    missing = [row for row in chosen if not finished(row, settings)]
    failed = []
    xla.enable_cache(None)
    with tqdm(total=sum(MINUTES.get(row.name, 1) for row in missing), unit="min") as bar:
        for row in missing:
            bar.set_description_str(row.name)
            try:
                run(row, settings)
            except progress.Stopped as stopped:
                return _stopped(row, stopped.signum)
            except KeyboardInterrupt:
                return _stopped(row, signal.SIGINT)
            except Exception:
                traceback.print_exc()
                failed.append(row.name)
            bar.update(MINUTES.get(row.name, 1))
    paths = {row.name: _path(row, settings) for row in known}
    found = {name: files.read_json(path) for name, path in paths.items() if path.exists()}
    kept = {} if options.quick else tables.read("study")
    published = {row["name"]: row for row in kept.get("rows", [])}
    rows = [
        describe(row, found[row.name]) if row.name in found else published[row.name] | quoted(row)
        for row in known
        if row.name in {**found, **published}
    ]
    record = {
        **tables.origin("experiments.study"),
        "command": "python -m experiments.study" + " --quick" * options.quick,  # of all rows
        "quick": options.quick,
        "rows": rows,
    }
    if rows and options.quick:
        print(tables.page(record, report.TABLES))
    elif rows:
        tables.publish("study", record, report.TABLES)
    if found:
        shown = {
            name: {part: outcome[part] and outcome[part]["shown"] for part in PARTS}
            for name, outcome in found.items()
        }
        files.write(folder / "study.html", page.render(record, shown))
        print(f"page: {folder / 'study.html'}")
    if failed:
        print(f"failed: {', '.join(failed)}; the same command tries again", file=sys.stderr)
    return 1 if failed else 0


def _stopped(row: Row, signum: int) -> int:
    """Report the signal and return the exit code."""
    print(f"{row.name}: stopped; the same command resumes", file=sys.stderr)
    return 128 + signum


if __name__ == "__main__":
    sys.exit(main())
