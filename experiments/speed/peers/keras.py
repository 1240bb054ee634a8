"""Keras on TensorFlow, compiled by XLA or not: `model.fit` over a tf.data pipeline.

Pipelines trained faster than arrays, and several steps per execution faster than one.
"""

import os
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from experiments.speed.peers import Peer, Task

PREDICT_BATCH = 500
STEPS_PER_EXECUTION = 8


def make(task: Task, *, compiled: bool) -> Peer:
    """Make a net, ready for `fit` and `predict`.

    Args:
      task: its net and data.
      compiled: by XLA, which Keras calls `jit_compile`.
    """
    tf.config.experimental.enable_tensor_float_32_execution(True)
    model = net(task.net)
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=STEPS_PER_EXECUTION,
        jit_compile=compiled,
    )
    x, test = (x.astype("float32") / 255 for x in (task.train_images, task.test_images))
    data = batches(x, task.train_labels, task.batch_size, drop_remainder=True)

    def fit() -> None:
        model.fit(data, verbose=0)

    def predict() -> None:
        model.predict(test, PREDICT_BATCH, verbose=0)

    def device_peak_bytes() -> int | None:
        if not tf.config.list_physical_devices("GPU"):
            return None
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]

    return Peer(fit, predict, device_peak_bytes)


def batches(
    x: np.ndarray, y: np.ndarray, batch_size: int, *, drop_remainder: bool = False
) -> tf.data.Dataset:
    """Return the examples in batches, in a new order each time."""
    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x))
    data = data.batch(batch_size, drop_remainder=drop_remainder).prefetch(2)
    options = tf.data.Options()
    options.autotune.enabled = False  # it wakes after 10, 20, 40 ms..., which delays every end
    return data.with_options(options)


def net(fields: Mapping[str, Any]) -> Any:
    """A net by its fields: a model of images (n, 28, 28, 1) that gives logits (n, 10)."""
    model = keras.Sequential([keras.Input((28, 28, 1))])
    for i, channels in enumerate(fields.get("channels", ())):
        kernel, pool = fields["kernels"][i], fields["pools"][i]
        padding = fields["padding"].lower()
        model.add(layers.Conv2D(channels, kernel, padding=padding, activation="relu"))
        if pool > 1:
            model.add(layers.MaxPooling2D(pool))
        if fields["conv_dropout"][i]:
            model.add(layers.Dropout(fields["conv_dropout"][i]))
    model.add(layers.Flatten())
    for width, rate in zip(fields["widths"], fields["dropout"], strict=True):
        model.add(layers.Dense(width, activation="relu"))
        if rate:
            model.add(layers.Dropout(rate))
    model.add(layers.Dense(10))
    return model
