"""What does a committee teach one net of the same shape?

    python -m experiments.distil            # --quick: three of them, on digits, to try it out

Ten nets of `configs/fast.py` decide together how probable each class is for every training image;
ten others learn from these probabilities in place of the labels (Hinton et al. 2015, at temperature
1, without label smoothing). Nothing is chosen; every net is that of its best epoch by validation,
and reads the test split once.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from configs import fast
from experiments import tables
from mnist_jax.analysis import ensemble, stats
from mnist_jax.data import splits
from mnist_jax.data.splits import Split
from mnist_jax.runs import choice
from mnist_jax.runs.choice import Choice
from mnist_jax.runtime import xla
from mnist_jax.workdir import files

RUNS = Path("runs/distil")


def study(dataset: str, seeds: int, folder: Path) -> dict[str, Any]:
    """Trains teachers, then students; goes on with what is in the folder, if it is of this config.

    Raises:
      UserError: it is of another one.
    """
    config = fast.get_config(dataset)
    config.members.seeds = seeds
    examples = splits.load(config)
    with files.locked(folder):
        files.prepare(folder, config.to_dict(), examples.fingerprint, overwrite=False)
    teachers = choice.choose(config, examples, folder / "teachers", print)
    on_train, _ = choice.judge(teachers, examples.train)
    believed = ensemble.probabilities(on_train).astype(np.float32)
    taught = examples._replace(train=Split(examples.train.images, believed))
    config.optim.label_smoothing = 0.0
    students = choice.choose(config, taught, folder / "students", print)
    logits, teachers_alone = _judge(teachers, examples.test)
    _, students_alone = _judge(students, examples.test)
    together = ensemble.accuracies(logits, examples.test.labels)["mean of probabilities"]
    return {
        "dataset": examples.name,
        "num_test": len(examples.test.labels),
        "teachers": teachers_alone,
        "committee": 100 * together,
        "students": students_alone,
        "gain": stats.paired(teachers_alone, students_alone)._asdict(),
    }


def _judge(
    found: Choice, test: Split
) -> tuple[Float32[np.ndarray, "members n classes"], list[float]]:
    logits, judged = choice.judge(found, test)
    return logits, [100 * report["accuracy"] for report in judged]


def to_markdown(record: Mapping[str, Any]) -> str:
    """The table: teachers, what they decide together, students."""
    header = ["data", "n", "a teacher, %", "all teachers, %", "a student, %", "gain (95% interval)"]
    cells = [
        record["dataset"],
        f"{len(record['teachers'])}",
        tables.spread(record["teachers"]),
        f"{record['committee']:.2f}",
        tables.spread(record["students"]),
        tables.interval(record["gain"]),
    ]
    note = (
        f"Test accuracy on all {record['num_test']:,} images, mean ± standard deviation over "
        f"seeds; the gain is that of a student over the teacher of its seed. "
        f"{tables.source(record)}"
    )
    return tables.markdown(header, [cells], note)


TABLES = (to_markdown,)


def main() -> None:
    """Trains what is missing and writes the results; with --quick only shows them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three of each, on digits")
    options = parser.parse_args()
    xla.enable_cache()
    dataset, seeds = ("digits", 3) if options.quick else ("mnist", 10)
    record = {
        **tables.origin("experiments.distil"),
        **study(dataset, seeds, RUNS / f"{dataset}-{seeds}"),
    }
    tables.publish("distil", record, TABLES, quick=options.quick)


if __name__ == "__main__":
    main()
