"""Seconds and memory of an epoch of training at one size, measured in its own process.

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

from experiments import timing
from mnist_jax import config as configs
from mnist_jax import train
from mnist_jax.runtime import provenance, xla


class Point(NamedTuple):
    """The job of a process."""

    model: Mapping[str, Any]  # fields of `config.model`
    num_train: int
    batch_size: int
    members: int  # seeds trained at once, vmapped; 1: not vmapped
    augment: bool
    repeats: int  # epochs timed


def measure(point: Point) -> dict[str, Any]:
    """Return the median seconds of an epoch, the parameters of one trial and the peak memory."""
    config = configs.default()
    config.model.update(point.model)
    config.train.batch_size = point.batch_size
    if point.augment:
        config.train.augment.update(rotation=10.0, zoom=0.1, shift=0.1)
    configs.validate(config)
    recipe, hparams = train.make_recipe(config, 10, point.num_train), train.make_hparams(config)
    images, labels = map(jnp.asarray, timing.random_examples(point.num_train))
    root = jax.random.key(0)
    init = partial(train.init_state, recipe, hparams)
    # The function below the package's own jit, to be vmapped before it is compiled.
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
        "device_peak_bytes": timing.device_peak_bytes(),
    }


if __name__ == "__main__":
    print(json.dumps(measure(Point(*json.loads(sys.argv[1])))))
