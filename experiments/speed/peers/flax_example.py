"""JAX as Flax's own MNIST example writes it: native layers, a Python loop over a jitted step."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from experiments.speed.peers import Peer, Task
from experiments.timing import device_peak_bytes

PREDICT_BATCH = 500


class Net(nn.Module):
    """A net by its fields, built from nn.Conv and nn.max_pool."""

    net: Any  # its fields, hashable

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        net = dict(self.net)
        if "channels" in net:
            stages = (net[k] for k in ("channels", "kernels", "pools", "conv_dropout"))
            for channels, kernel, pool, rate in zip(*stages, strict=True):
                x = nn.relu(nn.Conv(channels, (kernel, kernel), padding=net["padding"])(x))
                x = nn.max_pool(x, (pool, pool), (pool, pool)) if pool > 1 else x
                x = nn.Dropout(rate, deterministic=not train)(x)
        x = x.reshape(len(x), -1)
        for width, rate in zip(net["widths"], net["dropout"], strict=True):
            x = nn.Dropout(rate, deterministic=not train)(nn.relu(nn.Dense(width)(x)))
        return nn.Dense(10)(x)


def make(task: Task) -> Peer:
    """Make a net with a jitted step and a Python loop over batches."""
    jax.config.update("jax_default_matmul_precision", "default")  # TF32 on a GPU
    module = Net(hashable(task.net))
    x, test = (jnp.asarray(x, jnp.float32) / 255 for x in (task.train_images, task.test_images))
    y = jnp.asarray(task.train_labels)
    params = jax.jit(module.init, static_argnums=2)(jax.random.key(0), x[:1], False)
    optimizer = optax.adam(1e-3)
    opt_state = optimizer.init(params)

    @jax.jit
    def step(params: Any, opt_state: Any, x: jax.Array, y: jax.Array, key: jax.Array) -> tuple:
        def loss(params: Any) -> tuple:
            logits = module.apply(params, x, True, rngs={"dropout": key})
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return losses.mean(), logits

        (value, logits), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradients, opt_state)
        params = optax.apply_updates(params, updates)
        return params, opt_state, value, (logits.argmax(-1) == y).mean()

    forward = jax.jit(lambda params, x: module.apply(params, x, False))
    steps = len(y) // task.batch_size
    key = jax.random.key(1)

    def fit() -> None:
        nonlocal params, opt_state, key
        key, order_key = jax.random.split(key)
        order = jax.random.permutation(order_key, len(y))
        losses = []
        for batch in order.reshape(steps, task.batch_size):
            key, dropout_key = jax.random.split(key)
            params, opt_state, *seen = step(params, opt_state, x[batch], y[batch], dropout_key)
            losses.append(seen)
        jax.block_until_ready((params, losses))

    def predict() -> None:
        starts = range(0, len(test), PREDICT_BATCH)
        jax.block_until_ready([forward(params, test[i : i + PREDICT_BATCH]) for i in starts])

    return Peer(fit, predict, device_peak_bytes)


def hashable(net: Mapping[str, Any]) -> tuple:
    """Return the fields of a net as hashable pairs, as a Linen module needs them."""
    return tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in net.items())
