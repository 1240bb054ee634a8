"""An epoch of training at one size, in a process of its own: its seconds and its memory.

`experiments.scaling` starts these.
"""

import inspect
import json
import statistics
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax import config as configs
from mnist_jax import train
from mnist_jax.runtime import provenance, xla

ONCE = 60_000  # more training examples than these are repetitions


class Point(NamedTuple):
    """What a process is started for."""

    model: Mapping[str, Any]  # fields of `config.model`
    num_train: int
    batch_size: int
    members: int  # seeds trained at once, vmapped; 1: the plain epoch
    augment: bool
    repeats: int  # epochs timed


def measure(point: Point) -> dict[str, Any]:
    """Median seconds of an epoch of all members, parameters of one, and the process's memory."""
    config = configs.default()
    config.model.update(point.model)
    config.train.batch_size = point.batch_size
    if point.augment:
        config.train.augment.update(rotation=10.0, zoom=0.1, shift=0.1)
    configs.validate(config)
    recipe, hparams = train.make_recipe(config, 10, point.num_train), train.make_hparams(config)
    images, labels = map(jnp.asarray, examples(point.num_train))
    root = jax.random.key(0)
    init = partial(train.init_state, recipe, hparams)
    # What is below the package's own jit, to be vmapped before it is compiled.
    epoch = partial(inspect.unwrap(train.train_epoch), recipe)
    if point.members > 1:
        root = jax.random.split(root, point.members)
        init, epoch = jax.vmap(init), jax.vmap(epoch, in_axes=(0, None, None, None, 0))
    state = jax.jit(init)(root)
    num_params = sum(x.size for x in jax.tree.leaves(state.params)) // point.members
    jitted = jax.jit(epoch, donate_argnums=0)
    lowered = jitted.lower(state, images, labels, hparams, root)
    compiled = xla.compile_lowered(lowered)
    seconds = []
    for _ in range(1 + point.repeats):  # the first one warms up
        start = time.perf_counter()
        state = jax.block_until_ready(compiled(state, images, labels, hparams, root))[0]
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": statistics.median(seconds[1:]),
        "num_params": num_params,
        "peak_rss_bytes": provenance.peak_rss_bytes(),
        "device_peak_bytes": provenance.jax_peak_bytes(),
    }


def examples(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images (count, 28, 28, 1) of uint8 and labels of int32, `ONCE` different ones."""
    rng = np.random.default_rng(0)  # what the pixels are does not change the time
    images = rng.integers(0, 256, (min(count, ONCE), 28, 28, 1), np.uint8)
    labels = rng.integers(0, 10, len(images), np.int32)
    return np.resize(images, (count, 28, 28, 1)), np.resize(labels, count)


if __name__ == "__main__":
    print(json.dumps(measure(Point(*json.loads(sys.argv[1])))))
