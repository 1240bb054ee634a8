"""Checkpoints: every bit is restored, the latest two are kept, and a save is complete or absent."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from checkpoints import (
    LIKE,
    assert_is_epoch,
    assert_same,
    make_history,
    make_state,
    names,
    save_run,
)

from mnist_jax.train.state import State
from mnist_jax.workdir import checkpoint
from mnist_jax.workdir.checkpoint import CheckpointError

# --- what comes back ---------------------------------------------------------------------------


def odd_state(xp):
    """Empty subtrees, None, scalars, bfloat16, -0.0, NaN with a payload, Adam inside a chain."""
    params = {
        "dense": [{"kernel": xp.full((3, 5), -0.0, xp.float32), "bias": xp.ones(2, xp.float16)}],
        "half": xp.asarray([1.5, -0.0, 3e38], ml_dtypes.bfloat16),
        "nan": xp.asarray(np.array([0x7FC00001, 0xFF800000], np.uint32).view(np.float32)),
        "flags": xp.asarray([True, False]),
        "fortran": xp.asarray(np.asfortranarray(np.arange(12, dtype=np.int8).reshape(3, 4))),
        "bytes": xp.arange(256, dtype=xp.uint8).reshape(2, 1, 128),
        "nothing": {},
    }
    adam = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3), optax.identity())
    opt_state = adam.init({"a": jnp.ones((4, 3)), "b": {"c": jnp.float32(2)}})
    plateau = optax.contrib.reduce_on_plateau(patience=3).init({"a": jnp.ones(2)})
    state = State(xp.asarray(7, xp.int32), params, {}, opt_state, None, plateau)
    return jax.tree.map(xp.asarray, state)


@pytest.mark.parametrize("saved_as", [jnp, np], ids=["jax", "numpy"])
@pytest.mark.parametrize("like_as", [jnp, np, "shapes"], ids=["jax", "numpy", "shapes"])
def test_every_bit_comes_back(tmp_path, saved_as, like_as):
    state = odd_state(saved_as)
    like = jax.eval_shape(lambda: odd_state(jnp)) if like_as == "shapes" else odd_state(like_as)
    history = [{"epoch": 1, "accuracy": 0.1 + 0.2, "loss": float("inf"), "note": "±"}]
    with checkpoint.open_directory(tmp_path / "a" / "b") as manager:
        checkpoint.save(manager, 1, state, history)
        restored = checkpoint.restore(manager, like)
    assert (restored.epoch, restored.history) == (1, history)
    assert_same(restored.state, state)
    if like_as is np:
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(restored.state))


def test_no_checkpoint_is_none(tmp_path):
    with checkpoint.open_directory(tmp_path) as manager:
        assert checkpoint.restore(manager, LIKE) is None


def test_a_relative_directory_and_foreign_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run", "notes").mkdir(parents=True)
    Path("run", "12").write_text("not a checkpoint")
    save_run(Path("run"), 1)
    assert names(tmp_path / "run") == ["1", "12", "notes"]
    with checkpoint.open_directory(Path("run")) as manager:
        assert_is_epoch(checkpoint.restore(manager, LIKE), 1)


# --- which are kept ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "kept"), [(1, ["1"]), (2, ["1", "2"]), (3, ["2", "3"]), (5, ["4", "5"])]
)
@pytest.mark.parametrize("restarts", [False, True])
def test_the_latest_two_are_kept(tmp_path, epochs, kept, restarts):
    if restarts:  # every epoch is saved by another manager, as if by another process
        for epoch in range(1, epochs + 1):
            with checkpoint.open_directory(tmp_path) as manager:
                checkpoint.save(manager, epoch, make_state(epoch), make_history(epoch))
    else:
        save_run(tmp_path, epochs)
    assert names(tmp_path) == kept
    with checkpoint.open_directory(tmp_path) as manager:
        assert_is_epoch(checkpoint.restore(manager, LIKE), epochs)
    assert names(tmp_path) == kept


def test_the_old_latest_is_there_until_the_new_one_is_complete(tmp_path):
    with checkpoint.open_directory(tmp_path) as manager:
        for epoch in range(1, 6):
            checkpoint.save(manager, epoch, make_state(epoch), make_history(epoch))
            # The new one may be complete by now; if it is not, both before it are there.
            assert {str(e) for e in range(max(1, epoch - 1), epoch)} <= set(names(tmp_path))


def test_an_epoch_is_saved_once(tmp_path):
    save_run(tmp_path, 3)
    with checkpoint.open_directory(tmp_path) as manager:
        for epoch in (3, 2):
            with pytest.raises(CheckpointError, match=r"epoch \d is not saved.*--overwrite"):
                checkpoint.save(manager, epoch, make_state(9), [])
        assert_is_epoch(checkpoint.restore(manager, LIKE), 3)


# --- what a save may rely on -------------------------------------------------------------------


def test_the_state_may_be_donated_and_the_history_changed_at_once(tmp_path):
    update = jax.jit(lambda state: jax.tree.map(lambda leaf: -leaf, state), donate_argnums=0)
    state = jax.tree.map(jnp.array, make_state(1))
    address = state.params["w"].unsafe_buffer_pointer()
    history = make_history(1)
    with checkpoint.open_directory(tmp_path) as manager:
        checkpoint.save(manager, 1, state, history)
        history[0]["loss"] = "changed"
        history.append({})
        after = update(state)
        assert state.params["w"].is_deleted()
        assert after.params["w"].unsafe_buffer_pointer() == address, "a save must not hold a buffer"
        numpy_state = make_state(2)
        checkpoint.save(manager, 2, numpy_state, make_history(2))
        numpy_state.params["w"][:] = 0
    with checkpoint.open_directory(tmp_path) as manager:
        assert_is_epoch(checkpoint.restore(manager, LIKE), 2)
        shutil.rmtree(tmp_path / "2")
        assert_is_epoch(checkpoint.restore(manager, LIKE), 1)


def test_wait_and_leaving_complete_the_save(tmp_path):
    with checkpoint.open_directory(tmp_path) as manager:
        checkpoint.save(manager, 1, make_state(1), [])
        checkpoint.wait(manager)
        assert names(tmp_path) == ["1"]
        checkpoint.save(manager, 2, make_state(2), [])
    assert names(tmp_path) == ["1", "2"]

    def interrupted():
        with checkpoint.open_directory(tmp_path) as manager:
            checkpoint.save(manager, 3, make_state(3), make_history(3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with checkpoint.open_directory(tmp_path) as manager:
        assert_is_epoch(checkpoint.restore(manager, LIKE), 3)


def test_history_that_is_not_json_is_refused_before_anything_is_written(tmp_path):
    with checkpoint.open_directory(tmp_path) as manager:
        with pytest.raises(TypeError):
            checkpoint.save(manager, 1, make_state(1), [{"loss": jnp.float32(1)}])
        assert checkpoint.restore(manager, LIKE) is None


@pytest.mark.parametrize("name", ["course [2026]", "a*b", "a?b", "**", "[!a]", "a\nb", "50%20#"])
def test_a_directorys_name_is_no_pattern(tmp_path, name):
    save_run(tmp_path / name, 3)
    assert names(tmp_path / name) == ["2", "3"]
    with checkpoint.open_directory(tmp_path / name) as manager:
        assert_is_epoch(checkpoint.restore(manager, LIKE), 3)
