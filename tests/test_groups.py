"""How groups of members are planned."""

import types

import jax
import numpy as np
import pytest

from configs import fast, linear
from mnist_jax import groups, parallel, sweep
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


def test_programs_are_as_wide_as_those_who_still_train_need(examples, monkeypatch):
    monkeypatch.setattr(groups, "cores", lambda: 2)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    config = two(linear.get_config)
    config.members.seeds, config.members.width = 8, 8

    def widths():
        everyone = sweep.expand(config)
        return [groups.plan(config, everyone, examples, n).width for n in (None, 8, 4, 3, 1, 0)]

    assert widths() == [8, 8, 4, 3, 1, 1]
    config.members.width, config.members.share_batches = 0, True
    assert widths() == [4, 4, 2, 2, 1, 1]


def test_devices_of_members_are_never_to_share_batches(examples, monkeypatch):
    """Which might not suit them, as nobody has checked at the start."""
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    mesh = types.SimpleNamespace(shape={"member": 4, "batch": 1})
    monkeypatch.setattr(parallel, "make_mesh", lambda of_members: mesh)
    config = two(linear.get_config)
    config.members.seeds, config.members.width, config.train.batch_size = 8, 8, 30
    everyone = sweep.expand(config)
    plans = [groups.plan(config, everyone, examples, n) for n in (8, 5, 4, 1, 0)]
    assert [plan.width for plan in plans] == [8, 8, 4, 4, 4]
