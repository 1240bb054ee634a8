"""Shared by the timing experiments; importing it does not import JAX into a peer's process."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int32, UInt8

if TYPE_CHECKING:
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
