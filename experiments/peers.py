"""The same training in other people's hands: what `experiments.speed` measures us against.

Each peer is a function `(net, images, labels, batch_size) -> Peer`, written as its own community
would at its best: data already on the device, batches drawn by a permutation, Adam at 1e-3.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Int32, UInt8

from mnist_jax import config as configs
from mnist_jax import evaluate, nets, train

Images = UInt8[np.ndarray, "n 28 28 1"]
Labels = Int32[np.ndarray, " n"]


class Peer(NamedTuple):
    """One implementation, compiled and warm after a first call of each function."""

    train: Callable[[], None]  # one pass over the images, finished when it returns
    predict: Callable[[], None]  # logits of all images, likewise


def ours(net: str, images: Images, labels: Labels, batch_size: int) -> Peer:
    """This package: an epoch is one program."""
    config = configs.default()
    config.model.name = net
    config.train.batch_size = batch_size
    recipe = train.make_recipe(config, 10, len(labels))
    hparams, root = train.make_hparams(config), jax.random.key(0)
    x, y = jnp.asarray(images), jnp.asarray(labels)
    state = train.init_state(recipe, hparams, root)

    def fit() -> None:
        nonlocal state
        state, sums = train.train_epoch(recipe, state, x, y, hparams, root)
        jax.block_until_ready(sums)

    def predict() -> None:
        jax.block_until_ready(evaluate.predict(recipe.model, train.variables(state), x))

    return Peer(fit, predict)


class _Plain(nn.Module):
    """The nets of `nets.NETS` as Flax's own examples write them: nn.Conv and nn.max_pool."""

    net: Any  # a hashable view of the fields

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


def flax_example(net: str, images: Images, labels: Labels, batch_size: int) -> Peer:
    """Flax's MNIST example: native convolutions, a Python loop over a jitted step."""
    module = _Plain(tuple(nets.fields({"name": net}).items()))
    x, y = jnp.asarray(images, jnp.float32) / 255, jnp.asarray(labels)
    params = module.init(jax.random.key(0), x[:1], False)
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
        return (
            optax.apply_updates(params, updates),
            opt_state,
            value,
            (logits.argmax(-1) == y).mean(),
        )

    forward = jax.jit(lambda params, x: module.apply(params, x, False))
    steps = len(labels) // batch_size
    key = jax.random.key(1)

    def fit() -> None:
        nonlocal params, opt_state, key
        key, order_key = jax.random.split(key)
        order = jax.random.permutation(order_key, len(labels))[: steps * batch_size]
        losses = []
        for batch in order.reshape(steps, batch_size):
            key, dropout_key = jax.random.split(key)
            params, opt_state, *seen = step(params, opt_state, x[batch], y[batch], dropout_key)
            losses.append(seen)
        jax.block_until_ready((params, losses))

    def predict() -> None:
        chunks = [forward(params, x[i : i + 500]) for i in range(0, len(x), 500)]
        jax.block_until_ready(chunks)

    return Peer(fit, predict)


def pytorch(net: str, images: Images, labels: Labels, batch_size: int) -> Peer:
    """PyTorch, eager: channels last, fused Adam, data on the device."""
    return _pytorch(net, images, labels, batch_size, compiled=False)


def pytorch_compiled(net: str, images: Images, labels: Labels, batch_size: int) -> Peer:
    """PyTorch with torch.compile over the model."""
    return _pytorch(net, images, labels, batch_size, compiled=True)


def _pytorch(net: str, images: Images, labels: Labels, batch_size: int, *, compiled: bool) -> Peer:
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _torch_net(nets.fields({"name": net})).to(device, memory_format=torch.channels_last)
    forward = torch.compile(model) if compiled else model
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(device)
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(labels.astype(np.int64)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    steps = len(labels) // batch_size

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def fit() -> None:
        model.train()
        order = torch.randperm(len(y), device=device)[: steps * batch_size]
        total = torch.zeros((), device=device)
        for batch in order.view(steps, batch_size):
            optimizer.zero_grad(set_to_none=True)
            pixels = x[batch].float() / 255
            logits = forward(pixels.contiguous(memory_format=torch.channels_last))
            loss = torch.nn.functional.cross_entropy(logits, y[batch])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        wait()

    def predict() -> None:
        model.eval()
        with torch.inference_mode():
            for i in range(0, len(x), 500):
                forward(x[i : i + 500].float() / 255)
        wait()

    return Peer(fit, predict)


def _torch_net(net: dict[str, Any]) -> Any:
    import torch

    layers: list[Any] = []
    side, features = 28, 1
    for i, channels in enumerate(net.get("channels", ())):
        kernel, pool = net["kernels"][i], net["pools"][i]
        layers += [torch.nn.Conv2d(features, channels, kernel, padding=net["padding"].lower())]
        layers += [torch.nn.ReLU()] + ([torch.nn.MaxPool2d(pool)] if pool > 1 else [])
        layers += [torch.nn.Dropout(net["conv_dropout"][i])] if net["conv_dropout"][i] else []
        side = (side if net["padding"] == "SAME" else side - kernel + 1) // pool
        features = channels
    layers += [torch.nn.Flatten()]
    features *= side * side
    for width, rate in zip(net["widths"], net["dropout"], strict=True):
        layers += [torch.nn.Linear(features, width), torch.nn.ReLU()]
        layers += [torch.nn.Dropout(rate)] if rate else []
        features = width
    return torch.nn.Sequential(*layers, torch.nn.Linear(features, 10))
