"""Real data for tests: the official archives, and one data_dir with both data sets prepared."""

import fcntl
import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# No TensorFlow, no socket: what the package promises for its preparation from archives.
LOAD = """
import sys
def watch(event, args):
    if event.startswith("socket."):
        raise RuntimeError(f"{event} while sockets are closed")
    if event == "import" and args[0] == "tensorflow":
        raise ModuleNotFoundError("No module named 'tensorflow'")
sys.addaudithook(watch)
from mnist_jax.data import datasets
datasets.load(sys.argv[1], data_dir=sys.argv[2], archives=sys.argv[3])
"""


def archives() -> Path:
    """The folder of official archives, or the test is skipped."""
    if folder := os.environ.get("MNIST_JAX_ARCHIVES"):
        return Path(folder)
    pytest.skip("MNIST_JAX_ARCHIVES is not set: no real MNIST to read")


def published(name: str, part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first images, uint8 (count, 28, 28, 1), and labels of an archive: "train" or "t10k"."""
    folder = archives() / name
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(16 + 784 * count), np.uint8, offset=16)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + count), np.uint8, offset=8)
    return pixels.reshape(count, 28, 28, 1), labels.astype(np.int32)


def prepared_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data_dir with `mnist` and `fashion_mnist` prepared: once a session, for all test files."""
    official = archives()
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # that of all workers
    data_dir = base / "prepared"
    with (base / "prepared.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        loads = [
            subprocess.Popen(
                [sys.executable, "-W", "error", "-c", LOAD, name, data_dir, official],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for name in ("mnist", "fashion_mnist")
            if not (data_dir / "mnist_jax" / f"{name}.npz").exists()
        ]
        outputs = [load.communicate()[0] for load in loads]
        if any(outputs) or any(load.returncode for load in loads):
            pytest.fail(f"preparing real data is not silent: {outputs}")
    return data_dir
