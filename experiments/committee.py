"""What is a committee of ten small CNNs worth, in accuracy and in calibration?

    python -m experiments.committee            # --quick: three of them, on digits, to try it out

The net is that of `configs/fast.py`. On MNIST it is trained as there; on Fashion-MNIST for eight
epochs at half the rate, which had the best mean validation accuracy over two seeds among five
recipes (rates 0.02 and 0.01; at 0.01 with and without flips and label smoothing), all within 0.4
points. Label smoothing makes a net less sure than it is right, and a committee is less sure still:
so both are trained without it, too; which of the two is ours, the mean validation accuracy of the
members decides, and together they are what the mean of their probabilities says. Each member is
that of its best epoch by validation, and all read the test split once.
"""

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs import fast
from experiments import tables
from mnist_jax.data import splits
from mnist_jax.runs import run_members
from mnist_jax.runtime import xla

RECIPES: dict[str, dict[str, Any]] = {  # beside configs/fast.py
    "mnist": {},
    "fashion_mnist": {"train.epochs": 8, "optim.learning_rate": 0.01},
}
QUICK: dict[str, dict[str, Any]] = {"digits": {"train.epochs": 4}}
SMOOTHING = (0.1, 0.0)
RULE = "mean of probabilities"
RUNS = Path("runs/committee")


def run(dataset: str, overrides: Mapping[str, Any], smoothing: float, seeds: int) -> dict[str, Any]:
    """What so many members are worth, each alone and together; goes on with what is in `RUNS`."""
    config = fast.get_config(dataset)
    config.data.offline_fallback = False
    config.members.seeds = seeds
    config.update_from_flattened_dict({**overrides, "optim.label_smoothing": smoothing})
    workdir = RUNS / f"{dataset}-smoothing-{smoothing}-{seeds}-members"
    summary = run_members.run_members(config, splits.load(config), workdir)
    committee = summary["committee"]
    return {
        "dataset": dataset,
        "epochs": config.train.epochs,
        "label_smoothing": smoothing,
        "num_params": summary["num_params"],
        "num_test": summary["num_test"],
        "validation": summary["settings"][summary["chosen"]]["val_accuracy"],
        "single": {key: summary["test"][key] for key in ("accuracy", "loss", "ece")},
        "committee": {key: value for key, value in committee.items() if key != "reliability"},
        "git_revision": summary["git_revision"],
    }


def accuracy_table(record: Mapping[str, Any]) -> str:
    """Of a single member, and of all of them by each rule; the table that README quotes."""
    rules = list(record["rows"][0]["committee"]["test_accuracy"])
    header = ["data", "label smoothing", "parameters", "validation, %", "single, %"]
    header += [f"{rule}, %" for rule in rules]
    cells = [
        [
            *_which(row),
            f"{row['num_params']:,}",
            _spread(row["validation"]),
            _spread(row["single"]["accuracy"]),
            *(f"{100 * row['committee']['test_accuracy'][rule]:.2f}" for rule in rules),
        ]
        for row in record["rows"]
    ]
    row = record["rows"][0]
    note = (
        f"Test accuracy on all {row['num_test']:,} images: mean ± standard deviation of "
        f"{row['committee']['members']} nets that differ in their seed, and what they decide "
        f"together by each rule. Validation: of each of them, at its best epoch; it chooses "
        f"{', '.join(_chosen(record))}. {tables.source(record)}"
    )
    return tables.markdown(header, cells, note)


def _chosen(record: Mapping[str, Any]) -> list[str]:
    """Of each data set the label smoothing of the best validation accuracy, and its committee."""
    names = dict.fromkeys(row["dataset"] for row in record["rows"])
    best = [
        max(
            (row for row in record["rows"] if row["dataset"] == name),
            key=lambda row: row["validation"]["mean"],
        )
        for name in names
    ]
    return [
        f"label smoothing {row['label_smoothing']:g} on {row['dataset']} (single "
        f"{_spread(row['single']['accuracy'])}, committee "
        f"{100 * row['committee']['test_accuracy'][RULE]:.2f}% by the {RULE})"
        for row in best
    ]


def _spread(accuracy: Mapping[str, float]) -> str:
    return f"{100 * accuracy['mean']:.2f} ± {100 * accuracy['sd']:.2f}"


def calibration_table(record: Mapping[str, Any]) -> str:
    """How sure a single member and all of them are, against how often they are right."""
    header = ["data", "label smoothing"]
    header += [f"{what}, {who}" for what in ("ECE, %", "NLL") for who in ("single", "committee")]
    cells = []
    for row in record["rows"]:
        single, committee = row["single"], row["committee"]
        cells.append(
            [
                *_which(row),
                f"{100 * single['ece']['mean']:.2f} ± {100 * single['ece']['sd']:.2f}",
                f"{100 * committee['ece']:.2f}",
                f"{single['loss']['mean']:.4f} ± {single['loss']['sd']:.4f}",
                f"{committee['nll']:.4f}",
            ]
        )
    note = (
        "Expected calibration error (15 bins) and negative log-likelihood (nats) on the same "
        "images: of each net alone, and of the mean of their probabilities."
    )
    return tables.markdown(header, cells, note)


def size_table(record: Mapping[str, Any]) -> str:
    """How the accuracy grows with the number of members."""
    sizes = [row["size"] for row in record["rows"][0]["committee"]["by_size"]]
    header = ["data", "label smoothing", *(f"{size}, %" for size in sizes)]
    cells = [
        [
            *_which(row),
            *(f"{100 * statistics.mean(s['accuracies']):.2f}" for s in row["committee"]["by_size"]),
        ]
        for row in record["rows"]
    ]
    note = (
        "Test accuracy of committees of so many members by the mean of their probabilities; "
        "the mean of 20 random ones of each size but the first and the last."
    )
    return tables.markdown(header, cells, note)


def _which(row: Mapping[str, Any]) -> list[str]:
    return [row["dataset"], f"{row['label_smoothing']:g}"]


TABLES = (accuracy_table, calibration_table, size_table)


def main() -> None:
    """Trains what is missing and writes the results; with --quick only shows them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three members, on digits")
    options = parser.parse_args()
    xla.enable_cache()
    recipes, seeds = (QUICK, 3) if options.quick else (RECIPES, 10)
    rows = [
        run(dataset, overrides, smoothing, seeds)
        for dataset, overrides in recipes.items()
        for smoothing in SMOOTHING
    ]
    record = {**tables.origin("experiments.committee"), "rows": rows}
    tables.publish("committee", record, TABLES, quick=options.quick)


if __name__ == "__main__":
    main()
