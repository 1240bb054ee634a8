"""How groups of members are planned."""

import numpy as np
import pytest

from configs import fast, linear
from mnist_jax import groups, sweep
from mnist_jax.splits import Split, Splits


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)

    def split(n):
        images = rng.integers(0, 256, (n, 28, 28, 1), dtype=np.uint8)
        return Split(images, rng.integers(0, 10, n, dtype=np.int32))

    return Splits("noise", tuple("0123456789"), "", split(128), split(0), split(10))


def two(get_config):
    config = get_config("mnist")
    config.data.val_size, config.members.seeds = 0.0, 2
    return config


def test_only_convolutions_take_turns(examples, monkeypatch):
    monkeypatch.setattr(groups, "cores", lambda: 2)
    for get_config, threads in ((linear.get_config, 2), (fast.get_config, 1)):
        config = two(get_config)
        assert groups.plan(config, sweep.expand(config), examples).threads == threads
