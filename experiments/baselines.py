"""What do the shipped configs reach on the test split, over several seeds, and in what time?

    python -m experiments.baselines            # or: make baselines

Each run is the command that README shows, in its own process, one after the other. Finished runs
are kept in runs/baselines and not repeated; published rows stay until a new one replaces them.
Every choice in the configs was made on validation data; each run reads the test split once.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments import tables

CONFIGS = {  # and the number of seeds
    "linear.py:mnist": 3,
    "linear.py:fashion_mnist": 3,
    "mlp.py:mnist": 3,
    "mlp.py:fashion_mnist": 3,
    "fast.py:mnist": 10,
    "cnn.py:mnist": 3,
    "cnn.py:fashion_mnist": 3,
}
RUNS = Path("runs/baselines")


def run(config: str, seed: int) -> dict[str, Any]:
    """Return the summary of one run, finished earlier or run now."""
    workdir = RUNS / f"{config.replace('.py:', '-')}-s{seed}"
    command = [sys.executable, "-m", "mnist_jax.main", f"--config=configs/{config}"]
    command += [f"--config.seed={seed}", f"--workdir={workdir}", "--noconfig.data.offline_fallback"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads((workdir / "summary.json").read_text())


def row(config: str, summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of a config over its seeds."""
    accuracies = [100 * summary["test_accuracy"] for summary in summaries]
    seconds = [summary["train_seconds"] for summary in summaries]
    first = summaries[0]
    return {
        "config": f"configs/{config}",
        "n": len(summaries),
        "test_accuracy_percent": statistics.mean(accuracies),
        "test_accuracy_sd": statistics.stdev(accuracies),
        "test_accuracies": accuracies,
        "num_test": first["num_test"],
        "num_params": first["num_params"],
        "train_seconds": statistics.median(seconds),
        "train_seconds_of_each": seconds,
        "compile_seconds": max(summary["compile_seconds"] for summary in summaries),
        "peak_rss_bytes": max(summary["peak_rss_bytes"] for summary in summaries),
        "device": first["device"],
        "versions": first["versions"],
        "git_revision": first["git_revision"],
    }


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of docs/results.md."""
    header = ["config", "parameters", "test accuracy, %", "n", "training, s", "compiling, s", "MB"]
    header += ["revision"]
    cells = [
        [
            f"`{r['config']}`",
            f"{r['num_params']:,}",
            f"{r['test_accuracy_percent']:.2f} ± {r['test_accuracy_sd']:.2f}",
            f"{r['n']}",
            f"{r['train_seconds']:.1f}",
            f"{r['compile_seconds']:.1f}",
            f"{r['peak_rss_bytes'] / 1e6:,.0f}",
            tables.short(r["git_revision"]),
        ]
        for r in rows
    ]
    r = rows[0]
    note = (
        "Mean ± standard deviation over n seeds; each run is evaluated once on all "
        f"{r['num_test']:,} test images. Training: median seconds, without compilation and "
        "validation. Compiling: the longest of the runs, because later ones find compiled programs "
        "in the cache. MB: the largest peak memory. "
        f"{tables.devices(rows)}, jax {r['versions']['jax']}; `python -m experiments.baselines`."
    )
    return tables.markdown(header, cells, note)


def short(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of README."""
    header = ["command: `mnist-jax train --config=`", "parameters", "test accuracy, %", "n"]
    cells = [
        [
            f"`{r['config'].removeprefix('configs/').replace('.py', '')}`",
            f"{r['num_params']:,}",
            f"{r['test_accuracy_percent']:.2f} ± {r['test_accuracy_sd']:.2f}",
            f"{r['n']}",
            f"{r['train_seconds']:.1f}",
        ]
        for r in rows
        if r["config"] != "configs/linear.py:fashion_mnist"
    ]
    note = (
        "Mean ± standard deviation over n seeds on all test images; median seconds without "
        f"compilation; {tables.devices(rows)}; `python -m experiments.baselines`."
    )
    return tables.markdown([*header, "training, s"], cells, note)


TABLES = (to_markdown,)


def main() -> None:
    """Run what is missing and write the results."""
    parser = tables.parser("baselines", __doc__)
    parser.add_argument(
        "--only", nargs="+", choices=CONFIGS, default=list(CONFIGS), help="measure only these"
    )
    options = parser.parse_args()
    jobs = [(config, seed) for config in options.only for seed in range(CONFIGS[config])]
    found: dict[str, list[dict[str, Any]]] = {}
    for config, seed in tqdm(jobs, unit="run"):
        found.setdefault(config, []).append(run(config, seed))
    rows = {row["config"]: row for row in tables.read("baselines")}
    rows |= {f"configs/{config}": row(config, summaries) for config, summaries in found.items()}
    ordered = [rows[name] for config in CONFIGS if (name := f"configs/{config}") in rows]
    tables.publish("baselines", ordered, TABLES)


if __name__ == "__main__":
    main()
