"""The same training in several libraries, for `experiments.speed`.

There is a module for each library, imported only in the process that measures it, so that start,
threads and memory are separate. Each has `make(task) -> Peer`, written as its own community would
at its best: data ready on the device, a new permutation each epoch, Adam at 1e-3. All multiply
float32 in TF32 on GPUs that have it: the default of JAX and TensorFlow, but not of PyTorch.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

OURS = ("ours", "ours by core")  # on a CPU: one device for all cores, or one for each
THEIRS = ("flax example", "pytorch", "pytorch compiled", "keras", "keras compiled")
PEERS = (OURS[0], *THEIRS, OURS[1])
GPU_PRECISION = "tf32"  # of the products of all peers


class Task(NamedTuple):
    """The task of every peer."""

    net: Mapping[str, Any]  # every field of a net, and the name of its family
    batch_size: int  # of training; the number of training examples is a multiple of it
    train_images: UInt8[np.ndarray, "train 28 28 1"]
    train_labels: Int32[np.ndarray, " train"]
    test_images: UInt8[np.ndarray, "test 28 28 1"]


class Peer(NamedTuple):
    """An implementation, with its data and parameters on the device."""

    train: Callable[[], None]  # one pass over the training examples, finished when it returns
    predict: Callable[[], None]  # logits of the test images, likewise
    device_peak_bytes: Callable[[], int | None]  # most memory held on an accelerator; None on a CPU
