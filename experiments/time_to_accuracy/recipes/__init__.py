"""Recipes for MNIST as their authors published them, and ours, for `time_to_accuracy`.

There is a module for each library, imported only in the process that trains with it. Each recipe is
a function `(data, seed) -> Training` with its author's net, optimizer, schedule, batch size and
epochs. All recipes have three things in common, which favour those that did otherwise: examples are
arrays in memory, each epoch has a new order, and a tenth of the training set is held out.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32, UInt8

PUBLISHED = {  # with their sources
    "pytorch_mnist": "https://github.com/pytorch/examples/blob/main/mnist/main.py",
    "keras_mnist_convnet": "https://keras.io/examples/vision/mnist_convnet",
    "flax_mnist": "https://github.com/google/flax/tree/v0.8.0/examples/mnist",
    "train_mnist_fast": "https://github.com/tuomaso/train_mnist_fast",
}


class Data(NamedTuple):
    """The examples of every recipe."""

    train_images: UInt8[np.ndarray, "train 28 28 1"]
    train_labels: Int32[np.ndarray, " train"]
    val_images: UInt8[np.ndarray, "val 28 28 1"]
    val_labels: Int32[np.ndarray, " val"]
    test_images: UInt8[np.ndarray, "test 28 28 1"]
    test_labels: Int32[np.ndarray, " test"]


class Training(NamedTuple):
    """A recipe that is ready to train."""

    epochs: int  # as published
    num_params: int
    compile_seconds: float  # before the first epoch
    train_epoch: Callable[[], None]  # blocks until the epoch is finished
    predict: Callable[[UInt8[np.ndarray, "n 28 28 1"]], Int[np.ndarray, " n"]]  # classes
