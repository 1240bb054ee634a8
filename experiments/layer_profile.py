"""How close to the machine's peak is each layer of the benchmark's nets, and each gradient?

    python -m experiments.layer_profile [--name=cpu] [--batch=128]

Convolutions (`conv.conv2d` and XLA's own) and dense layers: forward, gradient of the images and
gradient of the kernel. Each time is taken from a `lax.scan` of dependent calls whose results are
stored: a single call would include the allocation of its buffers, and XLA omits unused results.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array
from tqdm import tqdm

from experiments import gemm, tables
from mnist_jax.models import conv
from mnist_jax.runtime import xla

REPEATS = 5


class Layer(NamedTuple):
    """A convolution with padding "SAME"; a dense layer has images of one pixel."""

    net: str
    side: int  # of the images, in pixels
    cin: int
    cout: int
    kernel: int
    depthwise: bool = False  # one kernel for each channel


LAYERS = (
    Layer("mlp_512_256", 1, 784, 512, 1),
    Layer("mlp_512_256", 1, 512, 256, 1),
    Layer("cnn_3x3", 28, 1, 32, 3),
    Layer("cnn_3x3", 14, 32, 64, 3),
    Layer("cnn_5x5_3x3", 28, 1, 32, 5),
    Layer("cnn_5x5_3x3", 28, 32, 32, 5),
    Layer("cnn_5x5_3x3", 14, 64, 64, 3),
    Layer("of none", 14, 64, 64, 1),
    Layer("of none", 28, 32, 32, 3, depthwise=True),
)


def ours(x: Array, kernel: Array) -> Array:
    """Apply the package's own layer."""
    return x @ kernel[0, 0] if x.shape[1] == 1 else conv.conv2d(x, kernel)


def native(x: Array, kernel: Array) -> Array:
    """Apply XLA's own convolution, which has XLA's own gradients."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3] // kernel.shape[2],
    )


def seconds(function: Callable[[Array, Array], Array], a: Array, b: Array, calls: int) -> float:
    """Return the median seconds of a call of `function(a, b)`."""
    out = jax.eval_shape(function, a, b)

    def call(carry: tuple[Array, Array, Array], _: None) -> tuple:
        a, b, out = carry
        zero = 0 * out.ravel()[0]  # makes calls dependent; one pass over the smaller operand
        return (a, b, function(a + zero, b) if a.size < b.size else function(a, b + zero)), None

    def chain(a: Array, b: Array, out: Array) -> Array:
        return lax.scan(call, (a, b, out), None, length=calls)[0][2]

    args = (a, b, jnp.zeros(out.shape, out.dtype))
    compiled = xla.compile_lowered(jax.jit(chain).lower(*args))
    jax.block_until_ready(compiled(*args))
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        times.append((time.perf_counter() - start) / calls)
    return statistics.median(times)


def measure(layer: Layer, batch_size: int) -> dict[str, Any]:
    """Return the seconds of the forward pass and both gradients, of ours and of XLA's own."""
    keys = jax.random.split(jax.random.key(0), 3)
    side = layer.side
    calls = 10 if side > 1 else 500
    x = jax.random.normal(keys[0], (batch_size, side, side, layer.cin))
    group = 1 if layer.depthwise else layer.cin
    kernel = jax.random.normal(keys[1], (layer.kernel, layer.kernel, group, layer.cout))
    g = jax.random.normal(keys[2], (batch_size, side, side, layer.cout))

    def of_images(convolve: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
        return lambda g, kernel: jax.vjp(lambda x: convolve(x, kernel), x)[1](g)[0]

    def of_kernel(convolve: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
        return lambda x, g: jax.vjp(lambda kernel: convolve(x, kernel), kernel)[1](g)[0]

    return {
        **layer._asdict(),
        "flops": 2 * batch_size * side**2 * layer.kernel**2 * group * layer.cout,
        "forward": seconds(ours, x, kernel, calls),
        "forward_native": seconds(native, x, kernel, calls),
        "image_gradient": seconds(of_images(ours), g, kernel, calls),
        "image_gradient_native": seconds(of_images(native), g, kernel, calls),
        "kernel_gradient": seconds(of_kernel(ours), x, g, calls),
        "kernel_gradient_native": seconds(of_kernel(native), x, g, 1 if side > 1 else calls),
    }


def to_markdown(record: Mapping[str, Any]) -> str:
    """A row for each layer: milliseconds, ours with the rate, XLA's own in brackets."""
    header = [
        "net",
        "images",
        "kernel",
        "GFLOP",
        "forward, ms",
        "image gradient",
        "kernel gradient",
    ]
    cells = []
    for row in record["results"]:
        times = [
            f"{1e3 * row[part]:.2f}, {row['flops'] / row[part] / 1e9:.0f} GFLOP/s "
            f"({1e3 * row[f'{part}_native']:.3g})"
            for part in ("forward", "image_gradient", "kernel_gradient")
        ]
        kernel = f"{row['kernel']}x{row['kernel']}, " if row["side"] > 1 else "dense, "
        kernel += "depthwise" if row["depthwise"] else f"{row['cin']} to {row['cout']}"
        images = f"{record['batch_size']} of {row['side']}x{row['side']}"
        gflop = f"{row['flops'] / 1e9:.2f}"
        cells.append([f"`{row['net']}`", images, kernel, gflop, *times])
    peak = max(record["gemm_gflop_per_second"].values())
    note = (
        "Milliseconds per call and rate; in brackets, milliseconds of XLA's own convolution with "
        f"the same compiler options; medians of {REPEATS}; the machine multiplies matrices at "
        f"{peak:.0f} GFLOP/s; {tables.source(record)}"
    )
    return tables.markdown(header, cells, note)


TABLES = (to_markdown,)


def main() -> None:
    """Measure and write the results."""
    parser = tables.parser("layer_profile", __doc__)
    parser.add_argument("--name", default=jax.default_backend(), help="of the results' files")
    parser.add_argument("--batch", type=int, default=128, help="images of a call")
    options = parser.parse_args()
    record = {
        **tables.origin("experiments.layer_profile"),
        "batch_size": options.batch,
        "gemm_gflop_per_second": gemm.peak(),
        "results": [measure(layer, options.batch) for layer in tqdm(LAYERS, unit="layer")],
    }
    tables.publish(f"layer_profile-{options.name}", record, TABLES)


if __name__ == "__main__":
    main()
