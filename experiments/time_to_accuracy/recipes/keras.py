"""Keras's mnist_convnet, on TensorFlow."""

import os
import time
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Int, UInt8
from keras import layers

from experiments.speed.peers.keras import batches
from experiments.time_to_accuracy.recipes import Data, Training

BATCH_SIZE = 128


def mnist_convnet(data: Data, seed: int) -> Training:
    """Adam, dropout before the logits, 15 epochs."""
    keras.utils.set_random_seed(seed)
    model = mnist_convnet_net()
    model.compile(
        loss="categorical_crossentropy",
        optimizer="adam",
        metrics=["accuracy"],
        # Its default, XLA, is slower at convolutions on a CPU.
        jit_compile="auto" if tf.config.list_physical_devices("GPU") else False,
    )
    x, y = _pixels(data.train_images), keras.utils.to_categorical(data.train_labels, 10)
    start = time.perf_counter()
    _compile(model, x, y)
    compile_seconds = time.perf_counter() - start

    examples = batches(x, y, BATCH_SIZE)

    def train_epoch() -> None:
        model.fit(examples, verbose=0)

    def predict(images: UInt8[np.ndarray, "n 28 28 1"]) -> Int[np.ndarray, " n"]:
        return model.predict(_pixels(images), batch_size=500, verbose=0).argmax(1)

    return Training(15, model.count_params(), compile_seconds, train_epoch, predict)


def mnist_convnet_net() -> Any:
    """Images (n, 28, 28, 1) to probabilities (n, 10), by convolutions of 32 and 64."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )


def _compile(model: Any, x: np.ndarray, y: np.ndarray) -> None:
    """Trace `fit` for a whole batch and for the last one, then restore the variables."""
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    values = [variable.numpy() for variable in variables]
    few = BATCH_SIZE + len(x) % BATCH_SIZE
    model.fit(batches(x[:few], y[:few], BATCH_SIZE), verbose=0)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.astype("float32") / 255
