"""How much does a net gain by learning from an ensemble of nets of its own shape?

    python -m experiments.distil            # --quick: three nets, on digits, to try it out

An ensemble of ten nets of `configs/fast.py` gives the class probabilities of every training image;
ten students learn from these in place of the labels (Hinton et al. 2015, at temperature 1, without
label smoothing). Nothing is chosen; every net uses its best epoch by validation and reads the test
split once.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from configs import fast
from experiments import tables
from mnist_jax.analysis import ensemble, stats
from mnist_jax.data import splits
from mnist_jax.data.splits import Split, Splits
from mnist_jax.runs import evaluation, select
from mnist_jax.runs.select import Run, Selection
from mnist_jax.runtime import xla
from mnist_jax.workdir import files

RUNS = Path("runs/distil")


def study(dataset: str, seeds: int, folder: Path) -> dict[str, Any]:
    """Train teachers, then students, resuming from the folder.

    Raises:
      UserError: the folder holds a run of another config.
    """
    config = fast.get_config(dataset)
    config.sweep.seeds = seeds
    examples = splits.load(config)
    with files.locked(folder):
        files.prepare(folder, config.to_dict(), examples.fingerprint, overwrite=False)
    teachers = select.choose(Run(config, examples, folder, print), folder / "teachers")
    on_train = evaluation.evaluate_trials(teachers, examples.train, examples.class_names)
    targets = ensemble.probabilities(on_train.scores).astype(np.float32)
    taught = examples._replace(train=Split(examples.train.images, targets))
    config.optim.label_smoothing = 0.0
    students = select.choose(Run(config, taught, folder, print), folder / "students")
    logits, teachers_alone = _evaluate(teachers, examples)
    _, students_alone = _evaluate(students, examples)
    together = ensemble.accuracies(logits, examples.test.labels)["mean of probabilities"]
    return {
        "dataset": examples.name,
        "num_test": len(examples.test.labels),
        "teachers": teachers_alone,
        "committee": 100 * together,
        "students": students_alone,
        "gain": stats.paired(teachers_alone, students_alone)._asdict(),
    }


def _evaluate(
    selection: Selection, examples: Splits
) -> tuple[Float32[np.ndarray, "trials n classes"], list[float]]:
    logits, reports = evaluation.evaluate_trials(selection, examples.test, examples.class_names)
    return logits, [100 * report["accuracy"] for report in reports]


def to_markdown(record: Mapping[str, Any]) -> str:
    """Test accuracy of teachers, of their ensemble and of students."""
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
        f"seeds; gain: a student against the teacher of its seed. "
        f"{tables.source(record)}"
    )
    return tables.markdown(header, [cells], note)


TABLES = (to_markdown,)


def main() -> None:
    """Train what is missing and write the results; with --quick only print them."""
    parser = tables.parser("distil", __doc__)
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
