"""How long do the first epoch, from the command on, and reading the data take?

    python -m experiments.start_up [--repeats=5]

Each start is README's command in its own process, stopped at the line of its first epoch: the first
start of a config with an empty compilation cache, the others with the cache of the first. The data
was prepared by an earlier start.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from experiments import tables
from mnist_jax.data import datasets

CONFIGS = ("linear.py:mnist", "mlp.py:mnist", "fast.py:mnist", "cnn.py:mnist")


def until_first_epoch(config: str, cache: Path) -> float:
    """Return the seconds from the command to the line of its first epoch; then stop it.

    Raises:
      RuntimeError: it ended earlier.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mnist_jax.main", f"--config=configs/{config}"]
        command += [f"--workdir={folder}/run", f"--compilation_cache={cache}"]
        command += ["--noconfig.data.offline_fallback"]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as run:
            assert run.stdout is not None
            for line in run.stdout:
                if line.startswith("epoch 1/"):
                    seconds = time.perf_counter() - start
                    run.kill()
                    return seconds
    raise RuntimeError(f"{config}: exit code {run.returncode} before its first epoch was over")


def measure(config: str, repeats: int) -> dict[str, Any]:
    """Measure reading the data, the first (cold) start and later (warm) starts of a config."""
    name = config.partition(":")[2]
    datasets.load(name)
    loading = []
    for _ in range(repeats):
        start = time.perf_counter()
        datasets.load(name)
        loading.append(time.perf_counter() - start)
    with tempfile.TemporaryDirectory() as cache:
        cold, *warm = (until_first_epoch(config, Path(cache)) for _ in range(1 + repeats))
    return {"config": config, "data_seconds": loading, "cold_seconds": cold, "warm_seconds": warm}


def to_markdown(record: Mapping[str, Any]) -> str:
    """Seconds of each config."""
    header = ["config", "data, s", "first start, s", "later starts, s"]
    cells = [
        [
            f"`configs/{row['config']}`",
            f"{statistics.median(row['data_seconds']):.2f}",
            f"{row['cold_seconds']:.1f}",
            f"{statistics.median(row['warm_seconds']):.1f} "
            f"({min(row['warm_seconds']):.1f} to {max(row['warm_seconds']):.1f})",
        ]
        for row in record["rows"]
    ]
    repeats = len(record["rows"][0]["warm_seconds"])
    note = (
        "Seconds from the command to the end of its first epoch, its validation and its line: "
        "imports, data, compiling, training. The first start finds no compiled programs, later "
        f"ones do: the median of {repeats}, and their range. Data: reading what was prepared, "
        f"their median. {tables.source(record)}"
    )
    return tables.markdown(header, cells, note)


TABLES = (to_markdown,)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write the results."""
    parser = tables.parser("start_up", __doc__)
    parser.add_argument("--name", default=jax.default_backend(), help="of the results' files")
    parser.add_argument("--repeats", type=int, default=5, help="later starts of each config")
    options = parser.parse_args(argv)
    rows = [measure(config, options.repeats) for config in tqdm(CONFIGS, unit="config")]
    record = {**tables.origin("experiments.start_up"), "rows": rows}
    tables.publish(f"start_up-{options.name}", record, TABLES)


if __name__ == "__main__":
    main()
