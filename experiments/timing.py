"""Shared by the timing experiments; importing it does not import JAX into a peer's process."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int32, UInt8

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from mnist_jax.data.splits import Splits

EPOCH = 60_000  # examples


def random_examples(
    count: int, distinct: int = EPOCH
) -> tuple[UInt8[np.ndarray, "n 28 28 1"], Int32[np.ndarray, " n"]]:
    """Return random images and labels, repeated beyond `distinct`; pixels do not affect time."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (min(count, distinct), 28, 28, 1), np.uint8)
    labels = rng.integers(0, 10, len(images), np.int32)
    return np.resize(images, (count, 28, 28, 1)), np.resize(labels, count)


def random_splits(count: int) -> "Splits":
    """Return random examples for training, none for validation and one for testing."""
    from mnist_jax.data.splits import Split, Splits

    images, labels = random_examples(count)
    train, none, one = (Split(images[part], labels[part]) for part in np.s_[:, :0, :1])
    return Splits("random", tuple(map(str, range(10))), "", train, none, one)


def device_peak_bytes() -> int | None:
    """Return the peak memory of JAX's first device; None if it is the CPU."""
    import jax

    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def epoch_of_trials(config: "ConfigDict", examples: "Splits") -> tuple[int, Callable[[], None]]:
    """Return how many trials train at once, and a function that trains an epoch of all."""
    import jax

    from mnist_jax.runs import groups, loop, space
    from mnist_jax.train import trials

    all_trials = space.expand(config)
    group = groups.make(config, all_trials, examples)
    states = jax.tree.map(np.asarray, trials.init(group.plan, group.trials))
    chunks = loop.make_chunks(group, states, range(len(all_trials)))
    programs = loop.compile_programs(group, chunks[0])

    def train() -> None:
        for i, job in enumerate(loop.start_epoch(group, programs, chunks, 1)):
            chunks[i] = chunks[i]._replace(states=job.result()[0])

    return min(len(all_trials), group.plan.width * group.plan.threads), train
