"""Runs of a few numbers, to be saved and restored."""

import jax
import jax.numpy as jnp
import numpy as np

from mnist_jax.train.state import State
from mnist_jax.workdir import checkpoint

LIKE = State(
    step=jax.ShapeDtypeStruct((), jnp.int32),
    params={"w": jax.ShapeDtypeStruct((300, 7), jnp.float32)},
    batch_stats={},
    opt_state=None,
    ema_params=None,
    plateau=None,
)


def make_state(epoch):
    w = np.random.default_rng(epoch).normal(size=(300, 7)).astype(np.float32)
    return State(np.array(epoch, np.int32), {"w": w}, {}, None, None, None)


def make_history(epoch):
    return [{"epoch": e, "loss": 1 / e} for e in range(1, epoch + 1)]


def save_run(directory, epochs):
    """Save epochs 1, 2, ..., of which the latest two stay."""
    with checkpoint.open_directory(directory) as manager:
        for epoch in range(1, epochs + 1):
            checkpoint.save(manager, epoch, make_state(epoch), make_history(epoch))


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def assert_is_epoch(restored, epoch):
    """State, epoch and history belong together."""
    assert restored.epoch == epoch
    assert restored.history == make_history(epoch)
    assert_same(restored.state, make_state(epoch))
