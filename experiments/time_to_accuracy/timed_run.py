"""One recipe with one seed, in its own process: when does it reach each accuracy?

`experiments.time_to_accuracy` starts these.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from experiments.time_to_accuracy.recipes import Data, Training

TARGETS = (98.0, 99.0, 99.4)  # percent


class Job(NamedTuple):
    """The job of a process."""

    started: float  # time.perf_counter(), which all processes of a machine share
    recipe: str  # a name in `recipes.PUBLISHED`, or a config file with its data set
    seed: int
    data: str  # path of the examples, an .npz with the fields of `recipes.Data`
    stop_at: float | None  # the target, in percent, at which to stop; None: never


def make(recipe: str, data: Data, seed: int) -> Training:
    """Make a recipe by its name; only here is its library imported."""
    match recipe:
        case "pytorch_mnist":
            from experiments.time_to_accuracy.recipes import pytorch

            return pytorch.mnist(data, seed)
        case "train_mnist_fast":
            from experiments.time_to_accuracy.recipes import pytorch

            return pytorch.mnist_fast(data, seed)
        case "keras_mnist_convnet":
            from experiments.time_to_accuracy.recipes import keras

            return keras.mnist_convnet(data, seed)
        case "flax_mnist":
            from experiments.time_to_accuracy.recipes import flax_example

            return flax_example.mnist(data, seed)
        case file:
            from experiments.time_to_accuracy.recipes import ours

            return ours.config_file(file, data, seed)


def follow(
    training: Training,
    data: Data,
    stop_at: float | None,
    since_start: Callable[[], float],
    targets: Sequence[float] = TARGETS,
) -> dict[str, Any]:
    """Train to the recipe's end, and test the parameters that first reach a target on validation.

    Args:
      training: ready to train.
      data: examples of all splits.
      stop_at: stop once this target is reached; None: train to the end.
      since_start: seconds since the process was started.
      targets: accuracies in percent.

    Returns:
      `epochs`, with a row each: `epoch`, `train_seconds` so far without compiling and evaluating,
      `whole_seconds` of everything except testing, and `val_accuracy_percent`. `targets`: the row
      of the epoch that first reached each, with `test_accuracy_percent`; None if none did.
    """
    rows: list[dict[str, Any]] = []
    reached: dict[float, dict[str, Any]] = {}
    train_seconds = testing_seconds = 0.0
    for epoch in range(1, training.epochs + 1):
        start = time.perf_counter()
        training.train_epoch()
        train_seconds += time.perf_counter() - start
        accuracy = percent(training.predict(data.val_images), data.val_labels)
        row = {
            "epoch": epoch,
            "train_seconds": train_seconds,
            "whole_seconds": since_start() - testing_seconds,
            "val_accuracy_percent": accuracy,
        }
        rows.append(row)
        new = [target for target in targets if target not in reached and accuracy >= target]
        if new:
            start = time.perf_counter()
            test = percent(training.predict(data.test_images), data.test_labels)
            testing_seconds += time.perf_counter() - start
            reached |= {target: {**row, "test_accuracy_percent": test} for target in new}
        if stop_at in reached:
            break
    return {"epochs": rows, "targets": {f"{target:g}": reached.get(target) for target in targets}}


def percent(predicted: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> float:
    """Return the accuracy in percent, rounded correctly: 5,964 of 6,000 are 99.4."""
    return 100 * int((predicted == labels).sum()) / len(labels)


def main(job: Job) -> None:
    """Run a job and print its result, a line of JSON, as the last line."""
    with np.load(job.data) as file:
        data = Data(*(file[name] for name in Data._fields))
    training = make(job.recipe, data, job.seed)
    found = follow(training, data, job.stop_at, lambda: time.perf_counter() - job.started)
    result = {
        "recipe": job.recipe,
        "seed": job.seed,
        "num_params": training.num_params,
        "published_epochs": training.epochs,
        "compile_seconds": training.compile_seconds,
        **found,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(Job(*json.loads(sys.argv[1])))
