"""What does augmentation cost, on the device?

    python -m experiments.augmentation [--name=cpu] [--repeats=5]

Epochs of the same net with and without it, interleaved. `experiments.study` measures its benefit,
accuracy on displaced images: rows cnn_5x5_3x3 and cnn_augmented.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from tqdm import tqdm

from configs import study
from experiments import tables
from experiments.timing import EPOCH, epoch_of_trials, random_splits
from mnist_jax import config as configs
from mnist_jax.runtime import xla

NETS = ("cnn_3x3", "cnn_5x5_3x3")
BATCH_SIZE = 86
AUGMENTED: dict[str, dict[str, float]] = {  # compared with none
    "rotation 10°, zoom 0.3, shifts 0.3": {"rotation": 10.0, "zoom": 0.3, "shift": 0.3},
    "the same and random erasing": {"rotation": 10.0, "zoom": 0.3, "shift": 0.3, "erase": 0.5},
}


def cost(net: str, num_train: int, repeats: int) -> dict[str, Any]:
    """Return the seconds of 60,000 examples with each augmentation: medians and turns."""
    size = num_train // BATCH_SIZE * BATCH_SIZE
    examples, programs = random_splits(size), {}
    for name, strengths in {"none": {}, **AUGMENTED}.items():
        config = configs.default()
        config.model.update(study.MODELS[net])
        config.train.batch_size = BATCH_SIZE
        config.train.augment.update(strengths)
        _, programs[name] = epoch_of_trials(config, examples)
    turns: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(1 + repeats):  # the first one warms up
        for name, train_epoch in programs.items():
            start = time.perf_counter()
            train_epoch()
            if turn:
                turns[name].append((time.perf_counter() - start) * EPOCH / size)
    seconds = {name: statistics.median(values) for name, values in turns.items()}
    return {"net": net, "seconds": seconds, "turns": turns}


def to_markdown(record: Mapping[str, Any]) -> str:
    """A row for each net and augmentation."""
    header = ["net", "augmentation", "epoch, s", "times as long"]
    cells = [
        [row["net"], name, f"{seconds:.2f}", f"{seconds / row['seconds']['none']:.2f}"]
        for row in record["rows"]
        for name, seconds in row["seconds"].items()
    ]
    note = (
        f"Seconds of training on 60,000 examples, batch {BATCH_SIZE}; medians of "
        f"{record['repeats']} interleaved turns, without compilation; {tables.source(record)}"
    )
    return tables.markdown(header, cells, note)


TABLES = (to_markdown,)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write the results."""
    parser = tables.parser("augmentation", __doc__)
    parser.add_argument("--name", default=jax.default_backend(), help="of the results' files")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--train-size", type=int, default=12_000, help="examples of a timed turn")
    options = parser.parse_args(argv)
    xla.enable_cache()
    rows = [cost(net, options.train_size, options.repeats) for net in tqdm(NETS, unit="net")]
    origin = tables.origin("experiments.augmentation")
    record = {**origin, "repeats": options.repeats, "rows": rows}
    tables.publish(f"augmentation-{options.name}", record, TABLES)


if __name__ == "__main__":
    main()
