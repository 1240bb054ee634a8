"""Flax's MNIST example, in Linen, as it was until 2026 (here: of Flax 0.8.0).

Since then it uses NNX, with batch normalisation and a little dropout.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Int, UInt8

from experiments.time_to_accuracy.recipes import Data, Training

BATCH_SIZE = 128


class CNN(nn.Module):
    """Two convolutions with average pooling, one hidden layer."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for features in (32, 64):
            x = nn.relu(nn.Conv(features, (3, 3))(x))
            x = nn.avg_pool(x, (2, 2), (2, 2))
        return nn.Dense(10)(nn.relu(nn.Dense(256)(x.reshape(len(x), -1))))


def mnist(data: Data, seed: int) -> Training:
    """Momentum, a constant rate, a Python loop over a jitted step."""
    model = CNN()
    root = jax.random.key(seed)
    x, y = _pixels(data.train_images), jnp.asarray(data.train_labels)
    params = jax.jit(model.init)(root, x[:1])
    optimizer = optax.sgd(0.1, momentum=0.9)
    opt_state = optimizer.init(params)

    def step(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> tuple:
        def loss(params: Any) -> tuple:
            logits: Any = model.apply(params, x)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return losses.mean(), logits

        (value, logits), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        accuracy = (logits.argmax(-1) == y).mean()
        return optax.apply_updates(params, updates), opt_state, (value, accuracy)

    start = time.perf_counter()
    first = x[:BATCH_SIZE], y[:BATCH_SIZE]
    compiled = jax.jit(step).lower(params, opt_state, *first).compile()
    compile_seconds = time.perf_counter() - start
    forward = jax.jit(model.apply)
    steps, key = len(y) // BATCH_SIZE, root

    def train_epoch() -> None:
        nonlocal params, opt_state, key
        key, order_key = jax.random.split(key)
        order = jax.random.permutation(order_key, len(y))[: steps * BATCH_SIZE]
        seen = []
        for batch in order.reshape(steps, BATCH_SIZE):
            params, opt_state, measured = compiled(params, opt_state, x[batch], y[batch])
            seen.append(measured)
        jax.block_until_ready((params, seen))

    def predict(images: UInt8[np.ndarray, "n 28 28 1"]) -> Int[np.ndarray, " n"]:
        chunks = [images[i : i + 500] for i in range(0, len(images), 500)]
        return np.concatenate([forward(params, _pixels(chunk)).argmax(-1) for chunk in chunks])

    num_params = sum(leaf.size for leaf in jax.tree.leaves(params))
    return Training(10, num_params, compile_seconds, train_epoch, predict)


def _pixels(images: np.ndarray) -> jax.Array:
    return jnp.asarray(images, jnp.float32) / 255
