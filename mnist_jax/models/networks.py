"""Networks as pure functions: `build(config.model, ...) -> Model(init, apply, ...)`.

The only file that imports Flax. Linen modules, because their `init` and `apply` are stateless and
so can be jitted, vmapped over trials and differentiated like any other function.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Float32

from mnist_jax.models import conv, registry
from mnist_jax.models.registry import Layer, Rates
from mnist_jax.runtime import sharding
from mnist_jax.runtime.prng import Key
from mnist_jax.types import Fields, PyTree

Images = Float[Array, "n h w c"]
Logits = Float32[Array, "n outputs"]


class Model(NamedTuple):
    """A network as pure functions of its variables.

    `variables` are {"params": ...} and, with batch normalisation, {"batch_stats": ...}.
    """

    init: Callable[[Key], PyTree]  # key -> variables, float32
    apply: Callable[[PyTree, Float32[Array, "batch 28 28 1"]], Float32[Array, "batch classes"]]
    apply_train: Callable[[PyTree, Array, Key, Rates], tuple[Array, PyTree]]  # logits, batch_stats
    layers: Callable[[], list[Layer]]  # what the net consists of, in order
    precision: str | None = None  # of its products, as in `registry.PRECISIONS`; None: JAX's


class Dropout(nn.Module):
    """Zeroes a share of the values at random and scales the others up (Srivastava et al. 2014).

    Like Flax's, but the rate may be traced.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "*shape"], rate: Float32[Array, ""]) -> Array:
        draw = partial(jax.random.bernoulli, self.make_rng("dropout"), 1 - rate)
        kept = sharding.draw(draw, x.shape)
        return jnp.where(kept, x / (1 - rate).astype(x.dtype), jnp.zeros((), x.dtype))


class MLP(nn.Module):
    """Dense layers of the given widths, each with activation and dropout, then the logits.

    No widths: softmax regression.
    """

    widths: Sequence[int]
    dropout: Sequence[bool]  # after each hidden layer: whether it is compiled in
    activation: Callable[[Array], Array]
    num_outputs: int
    dtype: Any
    standardise: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n ..."], rates: Rates | None) -> Logits:
        x = x.reshape(x.shape[0], -1)
        if self.standardise:  # epsilon: a pixel that is nearly always black stays small
            axis = sharding.BATCH if sharding.num_shards() > 1 else None
            plain = partial(nn.BatchNorm, use_bias=False, use_scale=False, axis_name=axis)
            x = plain(rates is None, momentum=0.9, epsilon=1e-3)(x)
        for i, (width, drops) in enumerate(zip(self.widths, self.dropout, strict=True)):
            x = self.activation(nn.Dense(width, dtype=self.dtype)(x))
            if rates is not None and drops:  # named: what others draw does not depend on it
                x = Dropout(name=f"Dropout_{i}")(x, rates.dropout[i])
        return nn.Dense(self.num_outputs, dtype=self.dtype)(x).astype(jnp.float32)


class FourierFeatures(nn.Module):
    """Random features of unit variance, for a linear model of them to be a kernel machine.

    Their inner products, divided by their number, approximate exp(-gamma |x - y|^2) (Rahimi and
    Recht 2007). They are drawn with the initial weights and stay.
    """

    features: int
    gamma: float

    @nn.compact
    def __call__(self, x: Float[Array, "n pixels"]) -> Float32[Array, "n features"]:
        def frequencies() -> Array:
            shape = x.shape[-1], self.features
            drawn = jax.random.normal(self.make_rng("params"), shape, jnp.float32)
            return math.sqrt(2 * self.gamma) * drawn

        def phases() -> Array:
            key, shape = self.make_rng("params"), (self.features,)
            return jax.random.uniform(key, shape, jnp.float32, maxval=2 * math.pi)

        w = self.variable("batch_stats", "frequencies", frequencies).value
        b = self.variable("batch_stats", "phases", phases).value
        return math.sqrt(2) * jnp.cos(x @ w + b[None])


class RBF(nn.Module):
    """A linear model of random Fourier features."""

    features: int
    gamma: float
    head: MLP

    @nn.compact
    def __call__(self, x: Images, rates: Rates | None) -> Logits:
        x = FourierFeatures(self.features, self.gamma)(x.reshape(x.shape[0], -1))
        return self.head(x, rates)


class Conv(nn.Module):
    """Convolution, max-pooling, bias: in this order, which is the cheapest.

    A maximum commutes with adding a bias and with a monotonic activation, so that pooling first
    gives the same numbers from a quarter of the work.
    """

    features: int
    kernel: int
    pool: int
    padding: str
    use_bias: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 features"]:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        x = conv.conv2d_max_pool(x, kernel, self.pool, self.padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            x = x + conv.broadcast(bias.astype(self.dtype), x.shape)
        return x


class BatchNorm(nn.Module):
    """Normalize each channel of a batch to mean 0 and variance 1, then scale and shift it.

    Ioffe and Szegedy 2015; evaluation uses averages over past batches. Like Flax's, but with sums
    that are fast on a CPU.
    """

    average: bool  # whether to take the averages
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        means = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        variances = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        mean, variance = means.value, variances.value
        x = x.astype(jnp.float32)
        if not self.average:
            count = x.size // x.shape[-1] * sharding.num_shards()
            mean = sharding.all_reduce(conv.channel_sums(x)) / count
            squares = sharding.all_reduce(conv.channel_sums(x * x)) / count
            variance = jnp.maximum(squares - mean * mean, 0.0)
            for past, now in ((means, mean), (variances, variance)):
                past.value = 0.9 * past.value + 0.1 * now
        scale = scale * jax.lax.rsqrt(variance + 1e-5)
        x = x * conv.broadcast(scale, x.shape) + conv.broadcast(bias - mean * scale, x.shape)
        return x.astype(self.dtype)


class CNN(nn.Module):
    """Stages of convolution, pool, batch normalisation or bias, activation, dropout; then an MLP.

    Batch normalisation comes after pooling too, where there is less to normalise.
    """

    channels: Sequence[int]
    kernels: Sequence[int]
    pools: Sequence[int]  # 1: none
    conv_dropout: Sequence[bool]  # after each stage: whether it is compiled in
    padding: str
    batch_norm: bool
    head: MLP

    @nn.compact
    def __call__(self, x: Images, rates: Rates | None) -> Logits:
        dtype = self.head.dtype
        stages = zip(self.channels, self.kernels, self.pools, self.conv_dropout, strict=True)
        for i, (features, kernel, pool, drops) in enumerate(stages):
            x = Conv(features, kernel, pool, self.padding, not self.batch_norm, dtype)(x)
            if self.batch_norm:
                x = BatchNorm(rates is None, dtype)(x)
            x = self.head.activation(x)
            if rates is not None and drops:
                x = Dropout(name=f"Dropout_{i}")(x, rates.conv_dropout[i])
        return self.head(x, rates)


def read_rates(config: Fields) -> Rates:
    """Return the dropout rates of the model that `config.model` names."""
    net = registry.fields(config)
    return Rates(*(jnp.asarray(net.get(field, ()), jnp.float32) for field in Rates._fields))


def build(config: Fields, num_outputs: int) -> Model:
    """Build the model that `config.model` names.

    Args:
      config: `config.model`: a name in `registry.MODELS`, a dtype, and fields in place of the
        model's defaults. Only whether dropout rates are above 0 matters here.
      num_outputs: logits for each image.

    Raises:
      UserError: a field that the model lacks or cannot have.
    """
    net = registry.fields(config)
    net |= {field: tuple(rate > 0 for rate in net.get(field, ())) for field in Rates._fields}
    entry = registry.MODELS[config["name"]]
    module = entry.build(net, num_outputs, jnp.dtype(config["dtype"]))
    return from_module(module, config.get("matmul_precision"))


def multiply_in(precision: str | None) -> AbstractContextManager:
    """Trace products of this precision; None: of the one that JAX is set to."""
    return jax.default_matmul_precision(precision) if precision else nullcontext()


def from_module(module: nn.Module, precision: str | None = None) -> Model:
    """Any Linen module called as `module(images, rates)`, as a Model; no rates: it evaluates.

    Gradients have the precision that is set where they are traced: see `multiply_in`.
    """
    example = jnp.zeros((1, 28, 28, 1), jnp.float32)

    def apply(variables: PyTree, images: Array) -> Any:
        with multiply_in(precision):
            return module.apply(variables, images, None)

    def apply_train(
        variables: PyTree, images: Array, key: Key, rates: Rates
    ) -> tuple[Array, PyTree]:
        with multiply_in(precision):
            logits, updated = module.apply(
                variables, images, rates, rngs={"dropout": key}, mutable=["batch_stats"]
            )
        return logits, updated.get("batch_stats", {})

    def init(key: Key) -> PyTree:
        return module.init(key, example, None)

    return Model(init, apply, apply_train, cache(lambda: _layers(module, example)), precision)


def first_weights(model: Model, variables: PyTree) -> Float32[np.ndarray, "units h w"] | None:
    """Return the first layer's weights of the pixels of a one-channel image, per unit.

    A dense layer's weights cover the image, a convolution's its kernel; None if the first layer has
    no such weights.
    """
    first = next(layer for layer in model.layers() if layer.kind != "BatchNorm")
    layer = variables["params"]
    for name in filter(None, first.path.split("/")):
        layer = layer.get(name, {})
    kernel = np.asarray(layer.get("kernel", 0.0))
    side = math.isqrt(len(kernel)) if kernel.ndim == 2 else 0
    if side and side * side == len(kernel):
        kernel = kernel.reshape(side, side, 1, -1)
    return kernel[:, :, 0].transpose(2, 0, 1) if kernel.ndim == 4 else None


def _layers(module: nn.Module, example: Array) -> list[Layer]:
    rows: list[Layer] = []

    def record(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        out = call(*args, **kwargs)
        layer = context.module
        params = layer.variables.get("params", {})
        own = {name: p for name, p in params.items() if not isinstance(p, Mapping)}
        shown = own or isinstance(layer, nn.BatchNorm | FourierFeatures)
        if shown and context.method_name == "__call__":
            path, kind = "/".join(layer.path), type(layer).__name__
            again = any(row.path == path for row in rows)  # it shares its weights with itself
            num_params = 0 if again else sum(p.size for p in own.values())
            shape = jax.tree.leaves(out)[0].shape  # parts of others' layers return several arrays
            pool = f", pool {layer.pool}" if isinstance(layer, Conv) and layer.pool > 1 else ""
            detail = f"{layer.kernel}×{layer.kernel}{pool}" if isinstance(layer, Conv) else ""
            flops = _flops(layer, args, shape)
            rows.append(Layer(path, kind, shape[1:], num_params, flops, detail))
        return out

    with nn.intercept_methods(record):
        jax.eval_shape(lambda: module.init(jax.random.key(0), example, None))
    return rows


def _flops(layer: nn.Module, args: tuple, out: tuple[int, ...]) -> int:
    """Count the operations of a layer's product with its kernel; 0 without a kernel."""
    if isinstance(layer, FourierFeatures):
        return 2 * args[0].shape[-1] * layer.features
    if not isinstance(layer, Conv | nn.Conv | nn.Dense):
        return 0
    places = out[1:-1]
    if isinstance(layer, Conv):  # before pooling
        lost = layer.kernel - 1 if layer.padding == "VALID" else 0
        places = tuple(side - lost for side in args[0].shape[1:-1])
    return 2 * layer.variables["params"]["kernel"].size * math.prod(places)
