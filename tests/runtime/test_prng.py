"""Keys are a function of (seed, stream, step), the same in every process."""

import os
import subprocess
import sys

import jax
import numpy as np

from mnist_jax.runtime.prng import stream


def data(seed, name, step):
    return tuple(jax.random.key_data(stream(jax.random.key(seed), name, step)).tolist())


def test_seed_stream_and_step_all_matter():
    uses = [
        (seed, name, step)
        for seed in (0, 1)
        for name in ("init", "shuffle", "dropout", "augment")
        for step in (0, 1, 2)
    ]
    assert len({data(*use) for use in uses}) == len(uses)


def test_a_traced_step_gives_the_same_key():
    root = jax.random.key(3)
    traced = jax.jit(lambda step: stream(root, "dropout", step))(np.int32(7))
    assert traced == stream(root, "dropout", 7)


def test_the_same_in_every_process():
    code = (
        "import jax; from mnist_jax.runtime.prng import stream;"
        "print(tuple(jax.random.key_data(stream(jax.random.key(5), 'shuffle', 9)).tolist()))"
    )
    for salt in ("1", "2"):  # Python salts hash() of a string; no key may come from it
        env = {**os.environ, "PYTHONHASHSEED": salt}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == str(data(5, "shuffle", 9))
