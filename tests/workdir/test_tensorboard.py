"""TensorBoard's event files: epochs, results, and disks that are full."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard_events import events, scalars

from mnist_jax.types import UserError
from mnist_jax.workdir.tensorboard import TensorBoard

ROW = {
    "epoch": 1,
    "step": 10,
    "train_loss": 0.5,
    "train_accuracy": 0.8,
    "val_loss": None,
    "val_accuracy": None,
    "learning_rate": 0.001,
    "seconds": 1.5,
    "examples_per_second": 1000.0,
}


def expected(rows):
    names = ("train_loss", "train_accuracy", "learning_rate", "seconds", "examples_per_second")
    return [(name, row["epoch"], pytest.approx(row[name])) for row in rows for name in names]


def test_every_epoch_is_there_once_and_at_once(tmp_path):
    rows = [{**ROW, "epoch": epoch, "train_loss": 1 / epoch} for epoch in (1, 2, 3)]
    with TensorBoard(tmp_path / "board", []) as board:
        for done, row in enumerate(rows, 1):
            board.epoch(row)
            assert scalars(tmp_path / "board") == expected(rows[:done])
    # After a kill: the last epoch's checkpoint was not complete, so it is trained again.
    with TensorBoard(tmp_path / "board", rows[:2]) as board:
        board.epoch({**ROW, "epoch": 3})
    assert scalars(tmp_path / "board") == expected([*rows[:2], {**ROW, "epoch": 3}])


def test_what_came_of_the_run(tmp_path):
    image = np.arange(784, dtype=np.uint8).reshape(28, 28, 1)
    weights = np.linspace(-1, 1, 50, dtype=np.float32).reshape(5, 10)
    hparams = {"seed": 3, "optim.name": "adam", "model.widths": [4, 2], "train.clip": None}
    params = {"Dense_0/kernel": weights, "spoilt": weights * np.nan}
    with TensorBoard(tmp_path / "board", [ROW]) as board:
        board.finish(1, hparams, {"test_accuracy": 0.75}, {"01 4 as 9": image}, params)
    found = {value.tag: value for step, value in events(tmp_path / "board") if step == 1}
    assert ("test_accuracy", 1, 0.75) in scalars(tmp_path / "board")
    drawn = found["mistakes/01_4_as_9"].image
    pixels = np.asarray(Image.open(io.BytesIO(drawn.encoded_image_string)).convert("L"))
    np.testing.assert_array_equal(pixels, image[..., 0])
    histogram = found["parameters/Dense_0/kernel"].histo
    assert (histogram.num, histogram.min, histogram.max) == (50, -1, 1)
    assert "parameters/spoilt" not in found
    told = {tag: value.metadata.plugin_data for tag, value in found.items() if "hparams" in tag}
    assert {plugin.plugin_name for plugin in told.values()} == {"hparams"}
    start = told["_hparams_/session_start_info"].content
    for key, text in (("seed", b""), ("optim.name", b"adam"), ("model.widths", b"[4, 2]")):
        assert key.encode() in start
        assert text in start
    assert b"test_accuracy" in told["_hparams_/experiment"].content


def test_a_full_disk(tmp_path):
    def fill_the_disk():
        with TensorBoard(tmp_path / "board", []) as board:
            records = board.writer._py_recordio_writer
            records._writer.close()
            records._writer = full
            board.epoch(ROW)

    said = r"board: cannot be written \(No space left on device\)"
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(UserError, match=said):
        fill_the_disk()


def test_a_file_in_its_place(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"/file: cannot be written \(File exists\); make room$"):
        TensorBoard(tmp_path / "file", [])
