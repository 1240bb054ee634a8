"""How groups of trials are planned."""

import types

import jax
import numpy as np
import pytest

from configs import fast, linear, mlp
from mnist_jax.data.splits import Split, Splits
from mnist_jax.runs import groups, space
from mnist_jax.runtime import provenance, sharding


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)

    def split(n):
        images = rng.integers(0, 256, (n, 28, 28, 1), dtype=np.uint8)
        return Split(images, rng.integers(0, 10, n, dtype=np.int32))

    return Splits("noise", tuple("0123456789"), "", split(128), split(0), split(10))


def two(get_config):
    config = get_config("mnist")
    config.data.val_size, config.sweep.seeds = 0.0, 2
    return config


def mlp_128(dataset):
    config = mlp.get_config(dataset)
    config.model.name, config.model.widths = "mlp", (128,)
    return config


def test_only_convolutions_are_trained_one_after_the_other(examples, monkeypatch):
    monkeypatch.setattr(provenance, "cores", lambda: 2)
    for get_config, threads in ((linear.get_config, 2), (fast.get_config, 1)):
        config = two(get_config)
        assert groups.make_plan(config, space.expand(config), examples).threads == threads


def test_programs_are_as_wide_as_the_trials_that_still_train_need(examples, monkeypatch):
    monkeypatch.setattr(provenance, "cores", lambda: 2)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    config = two(linear.get_config)
    config.sweep.seeds, config.sweep.width = 8, 8

    def widths():
        all_trials = space.expand(config)
        return [
            groups.make_plan(config, all_trials, examples, n).width for n in (None, 8, 4, 3, 1, 0)
        ]

    assert widths() == [8, 8, 4, 3, 1, 1]
    config.sweep.width, config.sweep.share_batches = 0, True
    assert widths() == [4, 4, 2, 2, 1, 1]


def test_devices_that_hold_trials_do_not_share_batches_later(examples, monkeypatch):
    """Whether they could was not checked at the start."""
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    mesh = types.SimpleNamespace(shape={"trial": 4, "batch": 1})
    monkeypatch.setattr(sharding, "make_mesh", lambda parts: mesh)
    config = two(linear.get_config)
    config.sweep.seeds, config.sweep.width, config.train.batch_size = 8, 8, 30
    all_trials = space.expand(config)
    plans = [groups.make_plan(config, all_trials, examples, n) for n in (8, 5, 4, 1, 0)]
    assert [plan.width for plan in plans] == [8, 8, 4, 4, 4]


@pytest.mark.parametrize(
    ("devices", "trials", "batch_size", "parts", "width"),
    [
        (4, 8, 30, 4, 8),
        (4, 5, 32, 4, 8),
        (4, 2, 30, 2, 2),
        (4, 2, 25, 4, 4),  # no two devices can share a batch
        (8, 3, 32, 2, 4),
        (8, 2, 30, 4, 4),  # four devices cannot, two can
        (6, 5, 30, 3, 6),
        (4, 1, 32, 1, 1),
    ],
)
def test_devices_without_a_trial_share_the_batches_of_others(
    examples, monkeypatch, devices, trials, batch_size, parts, width
):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    shape = {"trial": parts, "batch": devices // parts}
    meshes = {parts: types.SimpleNamespace(shape=shape)}
    monkeypatch.setattr(sharding, "make_mesh", meshes.__getitem__)
    config = two(linear.get_config)
    config.sweep.update(seeds=trials, width=trials)
    config.train.batch_size = batch_size
    plan = groups.make_plan(config, space.expand(config), examples)
    assert plan.recipe.mesh is meshes[parts]
    assert plan.width == width


@pytest.mark.parametrize(
    ("room", "width"),
    [(0.5, 1), (1, 1), (3, 3), (4.9, 4), (6, 5), (9, 5), (10, 10), (1e3, 10), (None, 10)],
)
def test_accelerators_train_as_many_trials_as_fit_in_memory(examples, monkeypatch, room, width):
    """Ten trials, with room for some of them; all programs are equally wide."""
    config = two(linear.get_config)
    config.sweep.seeds, config.train.batch_size = 10, 100
    # Ours: 7,850 numbers, eight times; ten outputs of each example, eight times; half the memory.
    memory = None if room is None else {"bytes_limit": 2 * room * 4 * 8 * (7850 + 100 * 10)}
    device = types.SimpleNamespace(memory_stats=lambda: memory)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    plan = groups.make_plan(config, space.expand(config), examples)
    assert (plan.width, plan.threads) == (width, 1)


@pytest.mark.parametrize(
    ("get_config", "count", "width"),
    [
        (linear.get_config, 2, 1),
        (linear.get_config, 7, 4),
        (linear.get_config, 40, 20),
        (linear.get_config, 100, 25),  # 25 have 200,000 parameters
        (mlp_128, 10, 1),
        (fast.get_config, 10, 1),
    ],
)
def test_small_nets_that_share_batches_are_one_program_per_thread_on_a_cpu(
    examples, monkeypatch, get_config, count, width
):
    monkeypatch.setattr(provenance, "cores", lambda: 2)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    config = two(get_config)
    config.sweep.seeds, config.sweep.share_batches = count, True
    assert groups.make_plan(config, space.expand(config), examples).width == width
    config.sweep.share_batches = False
    assert groups.make_plan(config, space.expand(config), examples).width == 1
