"""What is written while a group of trials trains, and when a run is finished."""

import numpy as np
import pytest
from checkpoints import assert_is_epoch, make_history, make_state, names
from tensorboard_events import scalars

from mnist_jax.types import UserError
from mnist_jax.workdir import checkpoint, files, writer
from mnist_jax.workdir.writer import Writer


def train(workdir, first, last, plain=True):
    """Save some epochs as a run would; return the checkpoint from which it resumed."""
    with Writer(workdir / "checkpoints" / "0", print, workdir if plain else None) as group:
        resumed = group.resume(make_state(0))
        for epoch in range(first, last + 1):
            group.save(epoch, make_state(epoch), make_history(epoch))
    return resumed


def losses(workdir):
    return [value for tag, _, value in scalars(workdir / files.TENSORBOARD) if tag == "loss"]


def test_creating_a_writer_touches_no_file(tmp_path):
    Writer(tmp_path / "run" / "checkpoints", print, tmp_path / "run")
    assert names(tmp_path) == []


def test_a_plain_run_has_metrics_and_tensorboard_of_every_epoch(tmp_path):
    assert train(tmp_path, 1, 3) is None
    assert names(tmp_path / "checkpoints" / "0") == ["2", "3"]
    assert files.read_rows(tmp_path / files.METRICS) == make_history(3)
    assert losses(tmp_path) == pytest.approx([1, 1 / 2, 1 / 3])


def test_a_resumed_run_goes_back_to_its_checkpoint(tmp_path):
    """A killed run may have left metrics and events of an epoch that has no checkpoint."""
    train(tmp_path, 1, 2)
    files.write(tmp_path / files.METRICS, files.to_rows(make_history(3)))
    assert_is_epoch(train(tmp_path, 3, 2), 2)
    assert files.read_rows(tmp_path / files.METRICS) == make_history(2)
    assert losses(tmp_path) == pytest.approx([1, 1 / 2])
    assert_is_epoch(train(tmp_path, 3, 3), 2)
    assert files.read_rows(tmp_path / files.METRICS) == make_history(3)
    assert losses(tmp_path) == pytest.approx([1, 1 / 2, 1 / 3])


def test_a_group_of_a_sweep_has_checkpoints_alone(tmp_path):
    train(tmp_path, 1, 2, plain=False)
    assert names(tmp_path) == ["checkpoints"]
    assert_is_epoch(train(tmp_path, 3, 2, plain=False), 2)


@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3)])
def test_predictions_of_a_trial_and_of_several(tmp_path, shape):
    scores = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    labels = np.array([0, 2, 1, 1, 0], np.int32)
    writer.write_predictions(tmp_path / "p.npz", scores, labels)
    with np.load(tmp_path / "p.npz") as stored:
        np.testing.assert_array_equal(stored["logits"], scores)
        np.testing.assert_array_equal(stored["labels"], labels)
        assert stored["images_index"].tolist() == [0, 1, 2, 3, 4]


def test_the_summary_is_written_last(tmp_path, monkeypatch):
    """It says that the rest is complete."""
    written = []
    monkeypatch.setattr(writer.files, "write", lambda path, _: written.append(path.name))
    tables = {files.METRICS: make_history(1), files.TRIALS: [{"trial": 0}]}
    writer.finish(tmp_path, {"dataset": "digits"}, "<html>", tables)
    assert sorted(written[:-1]) == ["metrics.jsonl", "report.html", "trials.jsonl"]
    assert written[-1] == "summary.json"


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can ?not write checkpoints"):
        train(tmp_path / "file", 1, 1)


def test_the_first_checkpoint_is_read_back_before_training_continues(tmp_path, monkeypatch):
    read, epochs = checkpoint._read, []
    monkeypatch.setattr(
        checkpoint, "_read", lambda path: epochs.append(int(path.name)) or read(path)
    )
    train(tmp_path, 1, 3)
    assert epochs == [1]
    train(tmp_path, 4, 5)
    assert epochs == [1, 3, 4]  # resumed from 3, then the first of its own


@pytest.mark.parametrize("earlier", [0, 2])
def test_a_first_checkpoint_that_cannot_be_read_back_stops_the_run(tmp_path, monkeypatch, earlier):
    if earlier:
        train(tmp_path, 1, earlier)
    saved = checkpoint.save

    def save(manager, epoch, *args):
        saved(manager, epoch, *args)
        checkpoint.wait(manager)
        (tmp_path / "checkpoints" / "0" / str(epoch) / "record" / "metadata").write_text("")

    monkeypatch.setattr(checkpoint, "save", save)
    path = tmp_path / "checkpoints" / "0" / str(earlier + 1)
    match = f"^{path}: cannot be read back after it was saved .*; give another --workdir$"
    with pytest.raises(UserError, match=match):
        train(tmp_path, earlier + 1, 9)
    monkeypatch.undo()
    # The next start is not misled by it, and earlier checkpoints are intact.
    assert set(names(path.parent)) - {"deleted"} == ({str(earlier)} if earlier else set())
    resumed = train(tmp_path, earlier + 1, earlier + 1)
    assert (resumed.epoch if resumed else 0) == earlier
