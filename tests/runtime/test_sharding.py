"""Two and four devices do what one does, each its share of it.

XLA splits a CPU into the devices, in separate processes.
"""

import re
import shutil
from pathlib import Path

import forks
import numpy as np
import on_devices
import pytest
from devices import devices

from mnist_jax.runs import evaluation
from mnist_jax.runtime import sharding
from mnist_jax.types import UserError
from mnist_jax.workdir import files

ROOT = Path(__file__).parents[2]
MANY = (2, 4)


def on(count, folder, workdir):
    """Start on_devices.py on `count` devices, in the background."""
    argv = ["-W", "error", "-m", "on_devices", folder, workdir]
    return forks.Process(argv, ROOT, devices(count), merge=True)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Make a folder for each number of devices, and four workdirs: see `runs`."""
    folder = tmp_path_factory.mktemp("devices")
    two = on(2, folder / "2", folder / "begun")
    (folder / "1").mkdir()
    on_devices.train_and_predict(folder / "1", sharding.make_mesh())
    on_devices.convolve(folder / "1", sharding.make_mesh())
    on_devices.whole_run(folder / "unbroken")
    out = two.communicate()[0]
    assert two.returncode == 0, out
    shutil.copytree(folder / "begun", folder / "on 4")
    shutil.copytree(folder / "begun", folder / "on 1")
    four = on(4, folder / "4", folder / "on 4")
    on_devices.whole_run(folder / "on 1")
    out = four.communicate()[0]
    assert four.returncode == 0, out
    return folder


def arrays(path):
    with np.load(path) as stored:
        return dict(stored)


@pytest.mark.parametrize("count", MANY)
@pytest.mark.parametrize("name", ["epoch", "standardised", "logits", "convolve"])
def test_the_same_numbers(done, count, name):
    """Parameters, moments, averages, statistics and metrics of epochs; logits; a gradient."""
    one, many = (arrays(done / str(n) / f"{name}.npz") for n in (1, count))
    assert one.keys() == many.keys()
    for key, value in one.items():
        np.testing.assert_allclose(many[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


def program(done, count, name):
    return (done / str(count) / f"{name}.hlo").read_text()


def shapes(program, operation):
    """The number of elements of each result of an operation, in a program of one device."""
    results = re.findall(rf"= (.+?) {operation}(?:-start)?\(", program)
    sizes = [re.findall(r"\w\d+\[([\d,]*)\]", result) for result in results]
    return [int(np.prod([int(n) for n in s.split(",") if n])) for each in sizes for s in each]


def leading(program, *sizes):
    """Return the numbers of images in a program's arrays of images and activations.

    Random numbers do not count: each device draws those of the whole batch, see `parallel.draw`.
    """
    drawn = "jit(_bernoulli)", " broadcast(%constant"
    lines = [line for line in program.splitlines() if not any(word in line for word in drawn)]
    shape = re.compile(rf"f32\[(\d+),({'|'.join(map(str, sizes))}),\2,\d")
    return {int(n) for line in lines for n, _ in shape.findall(line)}


@pytest.mark.parametrize("count", [1, *MANY])
@pytest.mark.parametrize(("name", "convolutions"), [("epoch", 10), ("predict", 1)])
def test_each_device_works_on_its_share_of_a_batch(done, count, name, convolutions):
    """Convolutions: the second layer's, its images' gradient, two kernels' in four parts each."""
    text = program(done, count, name)
    assert len(shapes(text, "convolution")) == convolutions
    channels_first = {1, on_devices.EVERYTHING["model.channels"][0]}  # for kernels' gradients
    assert leading(text, 28, 14, 7) - channels_first == {on_devices.BATCH // count}


@pytest.mark.parametrize("count", MANY)
def test_only_sums_are_exchanged(done, count):
    """No images and no activations: nothing of a size that grows with the batch."""
    text = program(done, count, "epoch")
    one = arrays(done / "1" / "epoch.npz")
    params = sum(x.size for key, x in one.items() if key.startswith("[0].params"))
    statistics = sum(x.size for key, x in one.items() if "batch_stats" in key)
    summed = sum(shapes(text, "all-reduce"))
    assert params < summed < params + 4 * statistics + 10
    logits = (on_devices.TRAIN + -on_devices.TRAIN % on_devices.BATCH) * 10
    assert shapes(program(done, count, "predict"), "all-gather") == [logits]
    others = ("all-to-all", "collective-permute", "reduce-scatter")
    assert [x for name in ("epoch", "predict") for o in others for x in shapes(text, o)] == []
    assert shapes(text, "all-gather") == shapes(program(done, count, "predict"), "all-reduce") == []


@pytest.mark.parametrize("count", [1, *MANY])
def test_winograds_way_on_every_device(done, count):
    """Products of tiles, no convolution; only the kernel's gradient is exchanged, once."""
    text = program(done, count, "convolve")
    assert shapes(text, "convolution") == []
    kernel = arrays(done / str(count) / "convolve.npz")["kernel"]
    assert shapes(text, "all-reduce") == ([kernel.size] if count > 1 else [])


@pytest.mark.parametrize("moved", ["on 1", "on 4"])
def test_a_run_moves_between_numbers_of_devices(done, moved):
    """Two epochs on two devices, the rest on others: the run that was always on one."""
    unbroken, moved = (files.read_rows(done / name / files.METRICS) for name in ("unbroken", moved))
    assert len(moved) == len(unbroken) == on_devices.MLP["train.epochs"]
    for ours, theirs in zip(moved, unbroken, strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - {"seconds", "examples_per_second"}:
            atol = 0.01 if "accuracy" in key else 0.0  # an example or so that was undecided
            np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-4, atol=atol, err_msg=key)
    logits = [arrays(done / name / files.PREDICTIONS)["logits"] for name in ("unbroken", "on 4")]
    np.testing.assert_allclose(*logits, rtol=1e-3, atol=1e-4)


def test_the_first_epochs_were_on_two(done):
    """Else the test above compares one device with itself."""
    assert len(files.read_rows(done / "begun" / files.METRICS)) == on_devices.STOPPED


def test_evaluation_of_a_run(done):
    epochs, report = evaluation.evaluate_run(done / "on 4", "test")
    there = files.read_json(done / "4" / "evaluated.json")
    assert epochs == there[0]
    assert report["confusion_matrix"] == there[1]["confusion_matrix"]
    np.testing.assert_allclose(report["loss"], there[1]["loss"], rtol=1e-4)


def test_a_batch_that_cannot_be_shared(tmp_path):
    argv = ["-m", "mnist_jax.main", f"--config={ROOT}/configs/linear.py:digits"]
    done = forks.run([*argv, "--config.train.batch_size=30"], tmp_path, devices(4))
    assert (done.returncode, done.stdout) == (2, "")
    message = "config.train.batch_size: 30 is not a multiple of the 4 devices that share it; take "
    assert done.stderr == f"error: {message}28 or 32\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("batch_size", "count", "sizes"), [(128, 3, "126 or 129"), (3, 4, "4"), (9, 8, "8 or 16")]
)
def test_the_nearest_sizes_that_can(batch_size, count, sizes):
    with pytest.raises(UserError, match=rf"{batch_size} is not a .* {count} dev.*; take {sizes}$"):
        sharding.check_batch_size(batch_size, count)


@pytest.mark.parametrize(("batch_size", "count"), [(1, 1), (127, 1), (4, 4), (128, 8)])
def test_sizes_that_can(batch_size, count):
    sharding.check_batch_size(batch_size, count)
