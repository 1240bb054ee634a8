"""What do the shipped configs reach on the test split, over three seeds, and in how many seconds?

    python -m experiments.baselines            # or: make baselines

Each run is the very command that README shows, in a process of its own, one after the other, so
that its seconds are those of the machine alone. Finished runs are kept in runs/baselines and not
done again. Every choice in the configs was made on validation data; each run reads the test split
once.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

CONFIGS = [
    (model, data) for model in ("linear", "mlp", "cnn") for data in ("mnist", "fashion_mnist")
]
SEEDS = (0, 1, 2)
RUNS = Path("runs/baselines")
RESULTS = Path(__file__).parent / "results"


def run(model: str, data: str, seed: int) -> dict[str, Any]:
    """One run's summary, from the run that is there or from a new one."""
    workdir = RUNS / f"{model}-{data}-s{seed}"
    command = [sys.executable, "-m", "mnist_jax.main", f"--config=configs/{model}.py:{data}"]
    command += [f"--config.seed={seed}", f"--workdir={workdir}", "--noconfig.data.offline_fallback"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads((workdir / "summary.json").read_text())


def row(model: str, data: str, summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A config's figures over its seeds: mean and standard deviation of a single run."""
    accuracies = [100 * summary["test_accuracy"] for summary in summaries]
    seconds = [summary["train_seconds"] for summary in summaries]
    first = summaries[0]
    return {
        "config": f"configs/{model}.py:{data}",
        "n": len(summaries),
        "test_accuracy_percent": statistics.mean(accuracies),
        "test_accuracy_sd": statistics.stdev(accuracies),
        "test_accuracies": accuracies,
        "num_test": first["num_test"],
        "num_params": first["num_params"],
        "train_seconds": statistics.mean(seconds),
        "train_seconds_max": max(seconds),
        "compile_seconds": statistics.mean(summary["compile_seconds"] for summary in summaries),
        "peak_rss_bytes": max(summary["peak_rss_bytes"] for summary in summaries),
        "device": first["device"],
        "versions": first["versions"],
        "git_revision": first["git_revision"],
    }


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table that README quotes."""
    lines = [
        "| config | parameters | test accuracy, % | training, s | compiling, s | peak memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        accuracy = f"{r['test_accuracy_percent']:.2f} ± {r['test_accuracy_sd']:.2f}"
        lines.append(
            f"| `{r['config']}` | {r['num_params']:,} | {accuracy} | {r['train_seconds']:.0f} "
            f"| {r['compile_seconds']:.0f} | {r['peak_rss_bytes'] / 1e6:,.0f} |"
        )
    r = rows[0]
    lines += [
        "",
        f"Mean ± standard deviation over {r['n']} seeds, each judged once on all {r['num_test']:,}",
        f"test images; {r['device']}, jax {r['versions']['jax']}; "
        "`python -m experiments.baselines`.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs what is missing and writes the results."""
    jobs = [(model, data, seed) for model, data in CONFIGS for seed in SEEDS]
    summaries: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for model, data, seed in tqdm(jobs, unit="run"):
        summaries.setdefault((model, data), []).append(run(model, data, seed))
    rows = [row(model, data, found) for (model, data), found in summaries.items()]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "baselines.json").write_text(json.dumps(rows, indent=2) + "\n")
    (RESULTS / "baselines.md").write_text(to_markdown(rows))
    print(to_markdown(rows))


if __name__ == "__main__":
    main()
