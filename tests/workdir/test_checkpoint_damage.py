"""Checkpoints that are damaged, or of another model."""

import json
import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import pytest
from checkpoints import (
    LIKE,
    assert_is_epoch,
    make_history,
    make_state,
    names,
    save_run,
)

from mnist_jax.workdir import checkpoint
from mnist_jax.workdir.checkpoint import CheckpointError


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
    (step / "record" / "metadata").write_bytes(b'{"history": 1, \xff')


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
def test_a_damaged_newest_is_named_and_its_epoch_saved_again(tmp_path, damage):
    save_run(tmp_path, 4)
    damage(tmp_path / "4")
    told = []
    with checkpoint.open_directory(tmp_path) as manager:
        restored = checkpoint.restore(manager, LIKE, on_warning=told.append)
        assert_is_epoch(restored, 3)
        assert len(told) == 1
        assert re.match(f"{tmp_path / '4'}: .*damaged checkpoint", told[0])
        assert "\n" not in told[0]
        checkpoint.save(manager, 4, make_state(4), make_history(4))
    assert names(tmp_path) == ["3", "4", "4.damaged"]
    with checkpoint.open_directory(tmp_path) as manager:
        assert_is_epoch(checkpoint.restore(manager, LIKE), 4)


@pytest.mark.parametrize("damage", [emptied, one_bit, garbled_record])
def test_a_reader_skips_a_damaged_checkpoint_and_leaves_it(tmp_path, damage):
    save_run(tmp_path, 4)
    damage(tmp_path / "4")
    with pytest.warns(UserWarning, match=r"4: .*damaged checkpoint") as told:
        assert_is_epoch(checkpoint.read(tmp_path, LIKE), 3)
    assert len(told) == 1
    assert names(tmp_path) == ["3", "4"]


def test_damage_twice(tmp_path):
    save_run(tmp_path, 3)
    for _ in range(2):  # the second time, a directory 3.damaged exists
        emptied(tmp_path / "3")
        told = []
        with checkpoint.open_directory(tmp_path) as manager:
            assert_is_epoch(checkpoint.restore(manager, LIKE, told.append), 2)
            checkpoint.save(manager, 3, make_state(3), make_history(3))
        assert [line.split(":")[0] for line in told] == [str(tmp_path / "3")]
    assert names(tmp_path) == ["2", "3", "3.damaged"]


def test_all_damaged_is_an_error_and_stays_one(tmp_path):
    save_run(tmp_path, 4)
    emptied(tmp_path / "4")
    one_bit(tmp_path / "3")
    for _ in range(2):
        told = []
        with (
            checkpoint.open_directory(tmp_path) as manager,
            pytest.raises(CheckpointError, match="--overwrite") as caught,
        ):
            checkpoint.restore(manager, LIKE, told.append)
        assert str(caught.value).startswith(f"{tmp_path}: every checkpoint is damaged")
        assert "\n" not in str(caught.value)
        assert [line.split(":")[0] for line in told] == [str(tmp_path / "4"), str(tmp_path / "3")]


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
    save_run(tmp_path, 2)
    with (
        checkpoint.open_directory(tmp_path) as manager,
        pytest.raises(CheckpointError) as error,
    ):
        checkpoint.restore(manager, like)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / '2'}: ")
    assert f"{name} is " in message
    assert f"{here}" in message.split(" there and ")[1]
    assert names(tmp_path) == ["1", "2"]


def test_reading_leaves_all_as_it_is(tmp_path):
    assert checkpoint.read(tmp_path / "none", LIKE) is None
    assert names(tmp_path) == []
    save_run(tmp_path, 3)
    one_bit(tmp_path / "3")
    # What a process that is training has for moments.
    (tmp_path / "4.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "deleted" / "2").mkdir(parents=True)
    before = names(tmp_path)
    told = []
    assert_is_epoch(checkpoint.read(tmp_path, LIKE, told.append), 2)
    time.sleep(0.1)  # orbax cleans up in a thread
    assert len(told) == 1
    assert names(tmp_path) == before


def test_a_checkpoint_that_training_replaces_while_it_is_read_is_not_damaged(tmp_path, monkeypatch):
    save_run(tmp_path, 3)
    newer = tmp_path / "3"
    newer.rename(tmp_path / "aside")
    read, told = checkpoint._read, []

    def replaced(path):
        if path.name == "2":
            (tmp_path / "aside").rename(newer)
            path.rename(tmp_path / "aside")
        return read(path)

    monkeypatch.setattr(checkpoint, "_read", replaced)
    assert_is_epoch(checkpoint.read(tmp_path, LIKE, told.append), 3)
    assert told == []


def test_reading_while_another_thread_saves(tmp_path):
    save_run(tmp_path, 1)
    epochs = []
    with checkpoint.open_directory(tmp_path) as manager, ThreadPoolExecutor(1) as other:

        def train():
            for epoch in range(2, 12):
                checkpoint.save(manager, epoch, make_state(epoch), make_history(epoch))

        training = other.submit(train)
        while not training.done():
            restored = checkpoint.read(tmp_path, LIKE, pytest.fail)
            assert_is_epoch(restored, restored.epoch)
            epochs.append(restored.epoch)
        training.result()
    assert epochs == sorted(epochs)
    assert len(set(epochs)) > 1
