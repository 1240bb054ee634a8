"""What does each part of a recipe contribute? Copy this file, change `SETTINGS`, run it.

python -m experiments.ablation_template
"""

from pathlib import Path

from configs import mlp
from experiments import tables
from mnist_jax.analysis import stats
from mnist_jax.data import splits
from mnist_jax.runs.training import train_run
from mnist_jax.runtime import xla
from mnist_jax.workdir import files

SETTINGS = {
    "as it is": {},
    "no dropout": {"model.dropout": 0.0},
    "augmented": {"train.augment.shift": 0.07, "train.augment.rotation": 10.0},
    "label smoothing": {"optim.label_smoothing": 0.1},
}


def main(dataset: str = "mnist", seeds: int = 5, folder: Path = Path("runs/ablation")) -> str:
    """Train every setting with the same seeds, two or more, and return the table."""
    if seeds < 2:
        raise ValueError(f"seeds={seeds}: an interval takes two or more")
    config = mlp.get_config(dataset)
    config.sweep.update(seeds=seeds, settings=list(SETTINGS.values()))
    train_run(config, splits.load(config), folder)
    rows = files.read_rows(folder / files.TRIALS)
    lost = {row["seed"] for row in rows if row["status"] == "diverged"}  # a pair takes both
    rows = [row for row in rows if row["seed"] not in lost]
    values = [
        [100 * r["val_accuracy"] for r in rows if r["setting"] == i] for i, _ in enumerate(SETTINGS)
    ]
    cells = []
    for name, accuracies in zip(SETTINGS, values, strict=True):
        gain = stats.paired(values[0], accuracies)._asdict()
        cells.append([name, tables.spread(accuracies), tables.interval(gain)])
    header = ["setting", "validation accuracy, %", "gain (95% interval)"]
    note = f"{len(values[0])} seeds, paired with the first setting."
    return tables.markdown(header, cells, note)


if __name__ == "__main__":
    xla.enable_cache(None)
    print(main())
