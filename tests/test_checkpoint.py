"""Checkpoints: bit-exact, the best and the latest kept, no damage or kill goes unnoticed."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mnist_jax import checkpoint
from mnist_jax.checkpoint import CheckpointError
from mnist_jax.types import State

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


def save_run(directory, scores):
    """Epochs 1, 2, ... with these scores."""
    with checkpoint.open_directory(directory) as manager:
        for epoch, score in enumerate(scores, 1):
            checkpoint.save(manager, epoch, make_state(epoch), make_history(epoch), score)


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
        checkpoint.save(manager, 1, state, history, 0.5)
        restored = checkpoint.restore_latest(manager, like)
    assert (restored.epoch, restored.history) == (1, history)
    assert_same(restored.state, state)
    leaf_type = np.ndarray if like_as is np else jax.Array
    assert all(isinstance(leaf, leaf_type) for leaf in jax.tree.leaves(restored.state))


def test_a_resumed_step_is_not_compiled_again(tmp_path):
    traces = []

    @jax.jit
    def step(state):
        traces.append(1)
        return state._replace(step=state.step + 1)

    state = step(jax.tree.map(jnp.asarray, make_state(1)))
    state = step(state)
    with checkpoint.open_directory(tmp_path) as manager:
        checkpoint.save(manager, 2, state, [], None)
        restored = checkpoint.restore_latest(manager, state)
    step(restored.state)
    assert len(traces) == step._cache_size() == 1


def test_values_go_where_the_sharding_says(tmp_path):
    save_run(tmp_path, [None])
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec())
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), LIKE
    )
    for like in (abstract, jax.device_put(make_state(0), sharding)):
        with checkpoint.open_directory(tmp_path) as manager:
            state = checkpoint.restore_latest(manager, like).state
        assert all(leaf.sharding == sharding for leaf in jax.tree.leaves(state))
        assert_same(state, make_state(1))


def test_no_checkpoint_is_none(tmp_path):
    with checkpoint.open_directory(tmp_path) as manager:
        assert checkpoint.restore_latest(manager, LIKE) is None
        assert checkpoint.restore_best(manager, LIKE) is None


def test_read_only_leaves_all_as_it_is(tmp_path):
    with checkpoint.open_directory(tmp_path / "none", read_only=True) as manager:
        assert checkpoint.restore_best(manager, LIKE) is None
    assert names(tmp_path) == []
    save_run(tmp_path, [0.9, 0.1, 0.2])
    one_bit(tmp_path / "1")
    # What a process that is training has for moments.
    (tmp_path / "4.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "deleted" / "2").mkdir(parents=True)
    before = names(tmp_path)
    told = []
    with checkpoint.open_directory(tmp_path, read_only=True) as manager:
        assert_is_epoch(checkpoint.restore_best(manager, LIKE, told.append), 3)
    time.sleep(0.1)  # orbax cleans up in a thread
    assert len(told) == 1
    assert names(tmp_path) == before


def test_a_relative_directory_and_foreign_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run", "notes").mkdir(parents=True)
    Path("run", "12").write_text("not a checkpoint")
    save_run(Path("run"), [0.1])
    assert names(tmp_path / "run") == ["1", "12", "notes"]
    with checkpoint.open_directory(Path("run")) as manager:
        assert_is_epoch(checkpoint.restore_latest(manager, LIKE), 1)


# --- which are kept ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "best", "kept"),
    [
        ([0.1, 0.9, 0.2, 0.3, 0.4], 2, ["2", "4", "5"]),
        ([0.1, 0.2, 0.3, 0.4], 4, ["3", "4"]),
        ([0.2, 0.5, 0.5, 0.1, 0.5], 2, ["2", "4", "5"]),  # of equals the earliest
        ([None, None, None, None], 4, ["3", "4"]),
        ([None, -3.0, None, None, None], 2, ["2", "4", "5"]),
        ([float("nan"), 0.1, float("inf"), 0.0, float("nan")], 2, ["2", "4", "5"]),
        ([0.5], 1, ["1"]),
    ],
)
@pytest.mark.parametrize("restarts", [False, True])
def test_best_and_latest_are_kept(tmp_path, scores, best, kept, restarts):
    if restarts:  # every epoch is a process of its own: the scores are on disk only
        for epoch, score in enumerate(scores, 1):
            with checkpoint.open_directory(tmp_path) as manager:
                checkpoint.save(manager, epoch, make_state(epoch), make_history(epoch), score)
    else:
        save_run(tmp_path, scores)
    assert names(tmp_path) == kept
    with checkpoint.open_directory(tmp_path) as manager:
        assert_is_epoch(checkpoint.restore_best(manager, LIKE), best)
        assert_is_epoch(checkpoint.restore_latest(manager, LIKE), len(scores))
    assert names(tmp_path) == kept


def test_the_old_latest_is_there_until_the_new_one_is_complete(tmp_path):
    with checkpoint.open_directory(tmp_path) as manager:
        for epoch in range(1, 6):
            checkpoint.save(manager, epoch, make_state(epoch), make_history(epoch), None)
            # The new one may be complete by now; if it is not, both before it are there.
            assert {str(e) for e in range(max(1, epoch - 1), epoch)} <= set(names(tmp_path))


def test_an_epoch_is_saved_once(tmp_path):
    save_run(tmp_path, [0.1, 0.2, 0.3])
    with checkpoint.open_directory(tmp_path) as manager:
        for epoch in (3, 2):
            with pytest.raises(CheckpointError, match=r"epoch \d is not saved.*--overwrite"):
                checkpoint.save(manager, epoch, make_state(9), [], 9.0)
        assert_is_epoch(checkpoint.restore_latest(manager, LIKE), 3)


# --- what a save may rely on -------------------------------------------------------------------


def test_the_state_may_be_donated_and_the_history_changed_at_once(tmp_path):
    update = jax.jit(lambda state: jax.tree.map(lambda leaf: -leaf, state), donate_argnums=0)
    state = jax.tree.map(jnp.array, make_state(1))
    address = state.params["w"].unsafe_buffer_pointer()
    history = make_history(1)
    with checkpoint.open_directory(tmp_path) as manager:
        checkpoint.save(manager, 1, state, history, None)
        history[0]["loss"] = "changed"
        history.append({})
        after = update(state)
        assert state.params["w"].is_deleted()
        assert after.params["w"].unsafe_buffer_pointer() == address, "a save must not hold a buffer"
        numpy_state = make_state(2)
        checkpoint.save(manager, 2, numpy_state, make_history(2), None)
        numpy_state.params["w"][:] = 0
    with checkpoint.open_directory(tmp_path) as manager:
        assert_is_epoch(checkpoint.restore_latest(manager, LIKE), 2)
        shutil.rmtree(tmp_path / "2")
        assert_is_epoch(checkpoint.restore_latest(manager, LIKE), 1)


def test_wait_and_leaving_complete_the_save(tmp_path):
    with checkpoint.open_directory(tmp_path) as manager:
        checkpoint.save(manager, 1, make_state(1), [], None)
        checkpoint.wait(manager)
        assert names(tmp_path) == ["1"]
        checkpoint.save(manager, 2, make_state(2), [], None)
    assert names(tmp_path) == ["1", "2"]

    def interrupted():
        with checkpoint.open_directory(tmp_path) as manager:
            checkpoint.save(manager, 3, make_state(3), make_history(3), None)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with checkpoint.open_directory(tmp_path) as manager:
        assert_is_epoch(checkpoint.restore_latest(manager, LIKE), 3)


def test_history_that_is_not_json_is_refused_before_anything_is_written(tmp_path):
    with checkpoint.open_directory(tmp_path) as manager:
        with pytest.raises(TypeError):
            checkpoint.save(manager, 1, make_state(1), [{"loss": jnp.float32(1)}], None)
        assert checkpoint.restore_latest(manager, LIKE) is None


# --- damage ------------------------------------------------------------------------------------


def largest(step):
    files = [path for path in (step / "state").rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def emptied(step):
    shutil.rmtree(step)
    step.mkdir()


def no_manifest(step):
    (step / "state" / "manifest.ocdbt").unlink()


def truncated(step):
    os.truncate(largest(step), largest(step).stat().st_size // 2)


def one_bit(step):
    data = bytearray(largest(step).read_bytes())
    data[len(data) // 2] ^= 1
    largest(step).write_bytes(data)


def garbled(step):
    largest(step).write_bytes(os.urandom(largest(step).stat().st_size))


def all_files_empty(step):
    for path in step.rglob("*"):
        if path.is_file():
            os.truncate(path, 0)


def garbled_record(step):
    (step / "record" / "metadata").write_bytes(b'{"score": 1, \xff')


def record_is_no_object(step):
    (step / "record" / "metadata").write_text("[1]")


def one_digit_of_history(step):
    path = step / "record" / "metadata"
    record = json.loads(path.read_text())
    record["history"][0]["loss"] = 7.0
    path.write_text(json.dumps(record))


def no_record(step):
    shutil.rmtree(step / "record")


def no_state(step):
    shutil.rmtree(step / "state")


def garbled_tree(step):
    (step / "state" / "_METADATA").write_text("{")


DAMAGES = [
    emptied,
    no_manifest,
    truncated,
    one_bit,
    garbled,
    all_files_empty,
    garbled_record,
    record_is_no_object,
    one_digit_of_history,
    no_record,
    no_state,
    garbled_tree,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_is_told_by_name_and_its_epoch_made_again(tmp_path, damage):
    save_run(tmp_path, [0.1, 0.9, 0.3, 0.4])
    damage(tmp_path / "4")
    told = []
    with checkpoint.open_directory(tmp_path) as manager:
        restored = checkpoint.restore_latest(manager, LIKE, on_warning=told.append)
        assert_is_epoch(restored, 3)
        assert len(told) == 1
        assert told[0].startswith(f"{tmp_path / '4'}: damaged")
        assert "\n" not in told[0]
        assert_is_epoch(checkpoint.restore_best(manager, LIKE), 2)
        checkpoint.save(manager, 4, make_state(4), make_history(4), 0.4)
    assert names(tmp_path) == ["2", "3", "4", "4.damaged"]
    with checkpoint.open_directory(tmp_path) as manager:
        assert_is_epoch(checkpoint.restore_latest(manager, LIKE), 4)


@pytest.mark.parametrize("damage", [emptied, one_bit, garbled_record])
def test_a_damaged_best_is_told_by_name_and_the_next_best_taken(tmp_path, damage):
    save_run(tmp_path, [0.1, 0.9, 0.4, 0.3])
    damage(tmp_path / "2")
    with checkpoint.open_directory(tmp_path) as manager:
        with pytest.warns(UserWarning, match="2: damaged") as told:
            assert_is_epoch(checkpoint.restore_best(manager, LIKE), 3)
        assert len(told) == 1
        assert_is_epoch(checkpoint.restore_latest(manager, LIKE), 4)
    assert names(tmp_path) == ["2", "3", "4"]


def test_damage_twice_and_again(tmp_path):
    save_run(tmp_path, [0.9, 0.1, 0.2])
    for _ in range(2):  # the second time, a directory 3.damaged is there already
        emptied(tmp_path / "3")
        one_bit(tmp_path / "2")
        told = []
        with checkpoint.open_directory(tmp_path) as manager:
            assert_is_epoch(checkpoint.restore_latest(manager, LIKE, told.append), 1)
            checkpoint.save(manager, 2, make_state(2), make_history(2), 0.1)
            checkpoint.save(manager, 3, make_state(3), make_history(3), 0.1)
        assert [line.split(":")[0] for line in told] == [str(tmp_path / "3"), str(tmp_path / "2")]
    assert names(tmp_path) == ["1", "2", "2.damaged", "3", "3.damaged"]


@pytest.mark.parametrize("restore", [checkpoint.restore_latest, checkpoint.restore_best])
def test_all_damaged_is_an_error_and_stays_one(tmp_path, restore):
    save_run(tmp_path, [0.1, 0.9, 0.3, 0.4])
    for name in names(tmp_path):
        emptied(tmp_path / name)
    for _ in range(2):
        told = []
        with (
            checkpoint.open_directory(tmp_path) as manager,
            pytest.raises(CheckpointError, match="--overwrite") as caught,
        ):
            restore(manager, LIKE, told.append)
        assert str(caught.value).startswith(f"{tmp_path}: every checkpoint is damaged")
        assert "\n" not in str(caught.value)
        assert len(told) == 3


@pytest.mark.parametrize(
    ("like", "name", "here"),
    [
        (LIKE._replace(params={"w": jnp.zeros((300, 8))}), "params/w", "float32[300, 8]"),
        (LIKE._replace(params={"w": jnp.zeros((300, 7), "bfloat16")}), "params/w", "bfloat16"),
        (LIKE._replace(params={}), "params/w", "missing"),
        (LIKE._replace(ema_params={"w": jnp.zeros(3)}), "ema_params/w", "float32[3]"),
        (LIKE._replace(params={"v": LIKE.params["w"]}), "params/v", "float32[300, 7]"),
    ],
)
def test_another_model_is_an_error_not_damage(tmp_path, like, name, here):
    save_run(tmp_path, [0.1, 0.2])
    for restore in (checkpoint.restore_latest, checkpoint.restore_best):
        with (
            checkpoint.open_directory(tmp_path) as manager,
            pytest.raises(CheckpointError) as error,
        ):
            restore(manager, like)
        message = str(error.value)
        assert message.startswith(f"{tmp_path / '2'}: ")
        assert f"{name} is " in message
        assert f"{here}" in message.split(" there and ")[1]
    assert names(tmp_path) == ["1", "2"]


# --- nowhere to write --------------------------------------------------------------------------


def test_a_file_in_the_directorys_place(tmp_path):
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with (
            pytest.raises(CheckpointError, match=f"^{directory}: can not write"),
            checkpoint.open_directory(directory),
        ):
            pass


@pytest.mark.parametrize("then", ["save", "wait", "leave"])
def test_a_failed_save_surfaces(tmp_path, then):
    def run():
        with checkpoint.open_directory(tmp_path / "run") as manager:
            checkpoint.save(manager, 1, make_state(1), [], None)
            checkpoint.wait(manager)
            shutil.rmtree(tmp_path / "run")
            (tmp_path / "run").write_text("")
            checkpoint.save(manager, 2, make_state(2), [], None)
            if then == "save":
                checkpoint.save(manager, 3, make_state(3), [], None)
            if then == "wait":
                checkpoint.wait(manager)
            if then != "leave":
                pytest.fail("not reached")

    with pytest.raises(CheckpointError, match=f"^{tmp_path / 'run'}: can not write.*Not a dir"):
        run()


CHILD = """
import resource, sys
from pathlib import Path
import absl.logging
import numpy as np
from mnist_jax import checkpoint
from mnist_jax.types import State, UserError

absl.logging.set_verbosity("info")  # as a run would log that is told to
directory, trouble = Path(sys.argv[1]), sys.argv[2]

def state_of(epoch):
    draw = np.random.default_rng(epoch).normal
    return State(np.array(epoch, np.int32), {str(n): draw(size=(n, 50)) for n in range(1, 300, 30)},
                 {}, None, None, None)

def check(restored):
    assert restored.history == [{"epoch": e} for e in range(1, restored.epoch + 1)]
    assert restored.state.step == restored.epoch
    for name, value in state_of(restored.epoch).params.items():
        assert np.array_equal(restored.state.params[name], value)

def epochs():
    with checkpoint.open_directory(directory) as manager:
        last = checkpoint.restore_latest(manager, state_of(0))
        if last is not None:
            check(last)
            check(checkpoint.restore_best(manager, state_of(0)))
        first = 1 if last is None else last.epoch + 1
        for epoch in range(first, 100_000):
            if trouble and epoch == first + 3:
                checkpoint.wait(manager)
                if trouble == "full disk":
                    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
                else:
                    directory.rename(f"{directory}.moved")
                    directory.write_text("")
            history = [{"epoch": e} for e in range(1, epoch + 1)]
            checkpoint.save(manager, epoch, state_of(epoch), history, float(epoch % 7))
            print(epoch, flush=True)

try:
    epochs()
except UserError as error:
    sys.exit(str(error))
"""


def start(directory, trouble=""):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CHILD, str(directory), trouble],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )


def started_in(process):
    """Waits for the first save to be under way; returns its epoch."""
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return int(line)


@pytest.mark.parametrize(
    ("trouble", "reason"), [("full disk", "File too large"), ("gone", "Not a directory")]
)
def test_trouble_is_one_line_and_the_earlier_are_intact(tmp_path, trouble, reason):
    directory = tmp_path / "run"
    process = start(directory, trouble)
    try:
        _, stderr = process.communicate(timeout=60)  # orbax's threads may wait five minutes
    finally:
        process.kill()
    assert stderr.startswith(f"{directory}: can not write checkpoints (")
    assert reason in stderr
    assert stderr.count("\n") == 1, stderr
    assert process.returncode == 1
    if trouble == "gone":
        directory.unlink()
        Path(f"{directory}.moved").rename(directory)
    assert {"2", "3"} <= set(names(directory))
    process = start(directory)  # all is well again: it checks epoch 3 and goes on
    assert started_in(process) == 4
    process.kill()
    process.communicate()


def test_only_orbax_is_hushed():
    def passes(message, level, path, logger="absl"):
        record = logging.LogRecord(logger, level, path, 1, message, None, None)
        return bool(logging.getLogger(logger).filter(record))

    orbax = checkpoint.ocp.__file__
    assert not passes("Saving checkpoint", logging.INFO, orbax)
    assert not passes("Thread failed", logging.ERROR, orbax)  # raised as CheckpointError
    assert passes("Waiting for previous save took long", logging.WARNING, orbax)
    assert passes("Anything", logging.INFO, "/site-packages/other/module.py")
    assert passes("Anything", logging.ERROR, "/site-packages/other/module.py")
    lost = "Task exception was never retrieved\nfuture: <Task finished coro=<f() defined at {}:1>>"
    assert not passes(lost.format(orbax), logging.ERROR, "/asyncio/events.py", "asyncio")
    assert passes(lost.format("/my/file.py"), logging.ERROR, "/asyncio/events.py", "asyncio")
    told = []
    hook = checkpoint._not_too_late(told.append)
    hook(SimpleNamespace(exc_value=RuntimeError("Event loop is closed")))
    assert told == []
    hook(SimpleNamespace(exc_value=RuntimeError("else")))
    assert len(told) == 1


def test_killed_at_any_moment(tmp_path):
    rng = np.random.default_rng()
    left_over, done = set(), 0
    for delay in rng.uniform(0, 0.3, size=6):
        process = start(tmp_path)
        assert started_in(process) > done - 1
        time.sleep(delay)
        process.kill()
        stdout, stderr = process.communicate()
        assert stderr == "", f"killed after {delay} s"
        # That a save has returned says that the one before it is complete.
        done = max([done, *(int(line) - 1 for line in stdout.split())])
        left_over |= {name for name in names(tmp_path) if not name.isdigit()}
        latest = max((int(name) for name in names(tmp_path) if name.isdigit()), default=0)
        assert latest >= done, f"killed after {delay} s"
    assert any("tmp" in name for name in left_over), "no kill was in the middle of a save"
    process = start(tmp_path)
    assert started_in(process) > done - 1
    assert started_in(process) > done  # the leftovers are gone when a second save begins
    process.kill()
    process.communicate()


def test_leftovers_of_a_killed_process_go(tmp_path):
    save_run(tmp_path, [0.9, 0.1, 0.2])
    shutil.copytree(tmp_path / "3", tmp_path / "4.orbax-checkpoint-tmp")
    shutil.copytree(tmp_path / "1", tmp_path / "deleted" / "2")
    with checkpoint.open_directory(tmp_path) as manager:
        assert_is_epoch(checkpoint.restore_latest(manager, LIKE), 3)
        checkpoint.save(manager, 4, make_state(4), make_history(4), 0.0)
    assert names(tmp_path) == ["1", "3", "4"]
