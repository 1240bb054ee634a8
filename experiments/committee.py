"""How accurate and how well calibrated is an ensemble of ten small CNNs?

    python -m experiments.committee            # --quick: three nets, on digits, to try it out

The net is `configs/fast.py`. On MNIST it is trained as there; on Fashion-MNIST for eight epochs at
half the rate, which had the best mean validation accuracy over two seeds among five recipes (rates
0.02 and 0.01; at 0.01 with and without flips and label smoothing), all within 0.4 points. Label
smoothing makes a net underconfident, and an ensemble even more so; therefore both are also trained
without it. The mean validation accuracy of the members chooses between the two, and the ensemble
averages probabilities. Each member uses its best epoch by validation; all read the test split once.
"""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs import fast
from experiments import tables
from mnist_jax.data import splits
from mnist_jax.runs.training import train_run
from mnist_jax.runtime import xla

RECIPES: dict[str, dict[str, Any]] = {  # overrides of configs/fast.py
    "mnist": {},
    "fashion_mnist": {"train.epochs": 8, "optim.learning_rate": 0.01},
}
QUICK: dict[str, dict[str, Any]] = {"digits": {"train.epochs": 4}}
SMOOTHING = (0.1, 0.0)
RULE = "mean of probabilities"
RUNS = Path("runs/committee")
_KEYS = {"trials": "members", "nll_of_trials": "nll_of_members"}  # in the published results


def run(dataset: str, overrides: Mapping[str, Any], smoothing: float, seeds: int) -> dict[str, Any]:
    """Train an ensemble, resuming from `RUNS`, and return the figures of members and ensemble."""
    config = fast.get_config(dataset)
    config.data.offline_fallback = False
    config.sweep.seeds = seeds
    config.update_from_flattened_dict({**overrides, "optim.label_smoothing": smoothing})
    workdir = RUNS / f"{dataset}-smoothing-{smoothing}-{seeds}-members"
    summary = train_run(config, splits.load(config), workdir)
    return {
        "dataset": dataset,
        "epochs": config.train.epochs,
        "label_smoothing": smoothing,
        "num_params": summary["num_params"],
        "num_test": summary["num_test"],
        "validation": summary["settings"][summary["chosen"]]["val_score"],
        "single": {key: summary["test"][key] for key in ("accuracy", "loss", "ece")},
        "committee": {
            _KEYS.get(k, k): v for k, v in summary["ensemble"].items() if k != "reliability"
        },
        "git_revision": summary["git_revision"],
    }


def accuracy_table(record: Mapping[str, Any]) -> str:
    """Accuracy of a single member and of the ensemble by each rule."""
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
        f"{row['committee']['members']} nets with different seeds, and of their ensemble "
        f"by each rule. Validation accuracy: of each net at its best epoch; it selects "
        f"{', '.join(_chosen(record))}. {tables.source(record)}"
    )
    return tables.markdown(header, cells, note)


def _chosen(record: Mapping[str, Any]) -> list[str]:
    """Describe, for each data set, the row of the best validation accuracy."""
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
        f"{_spread(row['single']['accuracy'])}, ensemble "
        f"{100 * row['committee']['test_accuracy'][RULE]:.2f}% by the {RULE})"
        for row in best
    ]


def _spread(share: Mapping[str, float]) -> str:
    return f"{100 * share['mean']:.2f} ± {100 * share['sd']:.2f}"


def calibration_table(record: Mapping[str, Any]) -> str:
    """Calibration of a single member and of the ensemble."""
    header = ["data", "label smoothing"]
    header += [f"{what}, {who}" for what in ("ECE, %", "NLL") for who in ("single", "ensemble")]
    cells = []
    for row in record["rows"]:
        single, ensemble = row["single"], row["committee"]
        cells.append(
            [
                *_which(row),
                _spread(single["ece"]),
                f"{100 * ensemble['ece']:.2f}",
                f"{single['loss']['mean']:.4f} ± {single['loss']['sd']:.4f}",
                f"{ensemble['nll']:.4f}",
            ]
        )
    note = (
        "Expected calibration error (15 bins) and negative log-likelihood (nats) on the same "
        "images: of each net alone, and of the mean of their probabilities."
    )
    return tables.markdown(header, cells, note)


def size_table(record: Mapping[str, Any]) -> str:
    """Accuracy by the number of members."""
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
        "Test accuracy of ensembles by their number of members, by the mean of probabilities; the "
        "mean of 20 random ensembles of each size except the first and the last."
    )
    return tables.markdown(header, cells, note)


def _which(row: Mapping[str, Any]) -> list[str]:
    return [row["dataset"], f"{row['label_smoothing']:g}"]


TABLES = (accuracy_table, calibration_table, size_table)


def main() -> None:
    """Train what is missing and write the results; with --quick only print them."""
    parser = tables.parser("committee", __doc__)
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
