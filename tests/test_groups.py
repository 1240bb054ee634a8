"""How groups of members are planned, and that no plan changes their numbers."""

import jax
import numpy as np
import pytest

from configs import fast, linear
from mnist_jax import groups, members, progress, run_group, sweep
from mnist_jax.splits import Split, Splits

STEPS = 40


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)

    def split(n):
        images = rng.integers(0, 256, (n, 28, 28, 1), dtype=np.uint8)
        return Split(images, rng.integers(0, 10, n, dtype=np.int32))

    return Splits("noise", tuple("0123456789"), "", split(STEPS * 128), split(0), split(10))


def two(get_config):
    config = get_config("mnist")
    config.data.val_size, config.members.seeds = 0.0, 2
    return config


def test_only_convolutions_take_turns(examples, monkeypatch):
    monkeypatch.setattr(groups, "cores", lambda: 2)
    for get_config, threads in ((linear.get_config, 2), (fast.get_config, 1)):
        config = two(get_config)
        assert groups.plan(config, sweep.expand(config), examples).threads == threads


@pytest.mark.usefixtures("optimised")
def test_an_epoch_of_convolutions_has_the_same_bits_every_time(examples, monkeypatch):
    """Two programs at a time did not: XLA's convolutions share its threads."""
    monkeypatch.setattr(groups, "cores", lambda: 2)
    config = two(fast.get_config)
    group = groups.make(config, sweep.expand(config), examples)
    epoch_of = run_group.compile_epoch(group, members.start(group.plan, group.members))

    def weights():
        start = members.start(group.plan, group.members)
        with progress.Bar(1, 0, 1, lambda line: None) as bar:
            course, _ = run_group.train_epoch(group, start, epoch_of, 1, [0, 1], bar)
        return [leaf.tobytes() for leaf in jax.tree.leaves(jax.device_get(course.state.params))]

    first = weights()
    assert all(weights() == first for _ in range(2))
