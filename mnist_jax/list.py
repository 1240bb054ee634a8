"""List the runs below a folder: `python -m mnist_jax.list [DIR]`."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from mnist_jax import config as configs
from mnist_jax.cli.text import table
from mnist_jax.runtime import exits, output
from mnist_jax.runtime.arguments import Parser
from mnist_jax.types import Row, UserError, printable
from mnist_jax.workdir import files

HEADER = ("run", "data", "net", "test result", "date", "other than the first of its kind")
_COLUMNS = ("data.name", "model.name")  # of the config, which have columns of their own
_LONG = 24  # letters of a value


class Listed(NamedTuple):
    """A run, as it is listed."""

    name: str
    date: datetime  # of its end; of an unfinished run, of its start
    result: str
    config: dict[str, Any]  # by dotted keys


@exits.command
def main(argv: Sequence[str]) -> int:
    """Print a table of the runs and return the exit code."""
    parser = Parser(
        prog="python -m mnist_jax.list",
        description="List the runs below a folder, oldest first, with what their configs differ in "
        "from the first run of the same data and net.",
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"), metavar="DIR",
        help="default: runs")  # fmt: skip
    folder = parser.parse(argv).folder
    runs = []
    for workdir in find(folder):
        try:
            runs.append(read(workdir, folder))
        except UserError as error:
            output.warn(f"skipped: {printable(str(error))}")
    if not runs:
        raise UserError(f"{folder}: there are no runs; give the folder that holds them")
    output.say(table(HEADER, rows(sorted(runs, key=lambda run: run.date))))
    return 0


def find(folder: Path) -> Iterator[Path]:
    """Yield the workdirs at and below a folder, in the order of their names."""
    for path, folders, names in os.walk(folder):
        folders.sort()
        if files.CONFIG in names:
            folders.clear()  # a run holds no runs
            yield Path(path)


def read(workdir: Path, folder: Path) -> Listed:
    """Read what is listed of a run.

    Raises:
      UserError: there is none, or it is of another version.
    """
    config, _ = files.read_config(workdir)
    path, date = workdir / files.SUMMARY, None
    if path.exists():
        summary = files.read_json(path)
        result, date = _result(summary), summary.get("date")  # earlier versions wrote no date
    else:
        metrics = workdir / files.METRICS
        done = len(files.read_rows(metrics)) if metrics.exists() else 0
        result = f"unfinished, epoch {done} of {config.train.epochs}" if done else "unfinished"
        path = workdir / files.CONFIG
    written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return Listed(
        name=printable(str(workdir.relative_to(folder) if workdir != folder else workdir)),
        date=datetime.fromisoformat(date) if date else written,
        result=result,
        config=dict(configs.flatten(config.to_dict())),
    )


def _result(summary: Row) -> str:
    """Return the test score: of a sweep the mean ± standard deviation of its chosen trials."""
    score = summary.get("score", "accuracy")
    mean, spread = summary.get(f"test_{score}"), summary.get("test", {}).get(score, {})
    if mean is None:
        return "–"
    factor, unit = (1, " dB") if score == "psnr" else (100, "%")
    sd = f" ± {factor * spread['sd']:.2f}" if spread.get("sd") is not None else ""
    return f"{factor * mean:.2f}{unit}{sd}"


def rows(runs: Sequence[Listed]) -> list[list[str]]:
    """Return the cells of the table."""
    first: dict[tuple, dict[str, Any]] = {}
    cells = []
    for run in runs:
        kind = tuple(run.config[key] for key in _COLUMNS)
        base = first.setdefault(kind, run.config)
        changed = [
            f"{key}={_short(run.config[key])}" for key in configs.differences(base, run.config)
        ]
        date = f"{run.date.astimezone():%Y-%m-%d %H:%M}"
        line = [run.name, *map(str, kind), run.result, date, " ".join(changed)]
        cells.append([printable(cell) for cell in line])
    return cells


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
