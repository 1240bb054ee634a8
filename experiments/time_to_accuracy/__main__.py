"""How long do our configs and published recipes take to reach 98, 99 and 99.4%?

    python -m experiments.time_to_accuracy [--recipes ...] [--seeds=10] [--stop-at=99]

Runs are processes, one after the other, on the same 54,000 training examples. A target is reached
on the 6,000 held-out examples; the test split is read once at that moment. Finished runs are kept
in runs/time_to_accuracy and not repeated; published recipes stay until they are measured again. The
recipes of others need `pip install -e '.[bench]'`; one that cannot be run is left out, with its
reason in the record.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments import figures, tables
from experiments.time_to_accuracy import report, timed_run
from experiments.time_to_accuracy.recipes import PUBLISHED, Data
from mnist_jax import config as configs
from mnist_jax.cli import flags
from mnist_jax.data import datasets
from mnist_jax.runtime import provenance
from mnist_jax.types import UserError
from mnist_jax.workdir import files

RECIPES = ("configs/fast.py", "configs/mlp.py", "configs/cnn.py", *PUBLISHED)
RUNS = Path("runs/time_to_accuracy")
VAL_SIZE = 0.1


class Failed(Exception):  # noqa: N818
    """A recipe that cannot be run here; the message is its reason, in one line."""


def write_data(dataset: str) -> tuple[Path, dict[str, int]]:
    """Write the examples of every run to a file; return it and the sizes of the splits.

    Raises:
      UserError: the data is not available.
    """
    found = datasets.load(dataset)
    images, labels = found.train_images, found.train_labels
    train, val = datasets.split(labels, VAL_SIZE, seed=0)
    test = found.test_images, found.test_labels
    examples = Data(images[train], labels[train], images[val], labels[val], *test)
    path = RUNS / f"{dataset}.npz"
    RUNS.mkdir(parents=True, exist_ok=True)
    np.savez(path, **examples._asdict())
    return path, {"train": len(train), "val": len(val), "test": len(found.test_labels)}


def run(recipe: str, seed: int, examples: Path, stop_at: float | None) -> dict[str, Any]:
    """Return the results of one run, finished earlier or run now.

    Args:
      recipe: a name in `recipes.PUBLISHED`, or a config file.
      seed: of everything except the data.
      examples: what `write_data` wrote, named after the data set.
      stop_at: target at which to stop; None: train to the end.

    Raises:
      UserError: there is no such recipe.
      Failed: it cannot be run here.
    """
    published = recipe in PUBLISHED
    name = recipe if published else f"{recipe}:{examples.stem}"
    config = {} if published else flags.parse([f"--config={name}"]).config.to_dict()
    until = f"-until-{stop_at:g}" if stop_at else ""
    path = RUNS / f"{examples.stem}-{Path(recipe).stem}{until}-s{seed}.json"
    if path.exists():
        kept = files.read_json(path)
        if not configs.differences(kept["config"], config):
            return kept
    job = timed_run.Job(time.perf_counter(), name, seed, str(examples), stop_at)
    command = [sys.executable, "-m", "experiments.time_to_accuracy.timed_run", json.dumps(job)]
    env = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        raise Failed([f"exit code {done.returncode}", *done.stderr.strip().splitlines()][-1])
    found = json.loads(done.stdout.splitlines()[-1])
    origin = {"device": provenance.device(), "git_revision": provenance.git_revision()}
    kept = {**found, "config": config, **origin}
    files.write(path, files.to_json(kept))
    return files.read_json(path)


def summarize(
    recipe: str, runs: Sequence[Mapping[str, Any]], stop_at: float | None
) -> dict[str, Any]:
    """Compute the figures of a recipe over its seeds.

    Returns:
      Among others `targets`, with lists over the seeds that reached each (without those beyond the
      one at which the runs stopped, which they had no chance to reach), and the `curve`: means
      over seeds of each epoch that all of them trained.
    """
    first = runs[0]
    keys = (*report.TIMES, "test_accuracy_percent")
    targets = {}
    for target in first["targets"]:
        if stop_at and float(target) > stop_at:
            continue
        there = [found for run in runs if (found := run["targets"][target])]
        targets[target] = {key: [found[key] for found in there] for key in ("epoch", *keys)}
    curve = [
        {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
        for rows in zip(*(run["epochs"] for run in runs), strict=False)
    ]
    return {
        "recipe": recipe,
        "source": PUBLISHED.get(recipe, recipe),
        "n": len(runs),
        "device": tables.devices(runs),
        "git_revisions": sorted({tables.short(run["git_revision"]) for run in runs}),
        "num_params": first["num_params"],
        "published_epochs": first["published_epochs"],
        "compile_seconds": [run["compile_seconds"] for run in runs],
        "targets": targets,
        "curve": curve,
    }


def main() -> int:
    """Run what is missing and write the results; return the exit code."""
    parser = tables.parser("time_to_accuracy", __doc__)
    parser.add_argument("--recipes", nargs="+", default=RECIPES, help="names, or config files")
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument(
        "--stop-at", type=float, choices=timed_run.TARGETS, help="this target, in %%"
    )
    parser.add_argument("--dataset", default="mnist")
    options = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {}
    failed: dict[str, str] = {}
    # All recipes of a seed before the next seed, so that slow hours of the machine affect all.
    jobs = [(recipe, seed) for seed in range(options.seeds) for recipe in options.recipes]
    try:
        examples, sizes = write_data(options.dataset)
        for recipe, seed in tqdm(jobs, unit="run"):
            if recipe not in failed:
                try:
                    found = run(recipe, seed, examples, options.stop_at)
                    runs.setdefault(recipe, []).append(found)
                except Failed as error:
                    failed[recipe] = str(error)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    name = f"time_to_accuracy-{options.dataset}"
    recipes = {found["recipe"]: found for found in tables.read(name).get("recipes", [])}
    recipes |= {
        recipe: summarize(recipe, found, options.stop_at)
        for recipe, found in runs.items()
        if recipe not in failed
    }
    record = {
        **tables.origin("experiments.time_to_accuracy"),
        "dataset": options.dataset,
        "examples": sizes,
        "recipes": list(recipes.values()),
        "failed": failed,
        "left_out": [recipe for recipe in PUBLISHED if recipe not in {**recipes, **failed}],
    }
    tables.publish(name, record, report.TABLES)
    figures.save(report.figure(record), name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
