"""The rate at which this machine multiplies float32 matrices: the ceiling of every net's rate.

python -m experiments.gemm jax        # or: torch; prints GFLOP/s
"""

import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

SIZES = (1024, 2048, 4096)
PRODUCTS = 4  # in a row, since the first may have to fetch its operands
REPEATS = 3


def peak() -> dict[str, float]:
    """Return the GFLOP/s of each library, measured in its own process; failures are left out."""
    rates = {}
    for library in ("jax", "torch"):
        command = [sys.executable, "-m", "experiments.gemm", library]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            rates[library] = float(done.stdout.split()[-1])
    return rates


def rate(multiply: Callable[[np.ndarray], Callable[[], None]]) -> float:
    """Return the GFLOP/s of the best size and repeat.

    Args:
      multiply: takes a square matrix, returns a function that multiplies by it `PRODUCTS` times.
    """
    best = 0.0
    for size in SIZES:
        matrix = np.random.default_rng(0).standard_normal((size, size), np.float32)
        products = multiply(matrix / np.float32(size**0.5))  # so that they do not grow
        products()
        for _ in range(REPEATS):
            start = time.perf_counter()
            products()
            best = max(best, PRODUCTS * 2 * size**3 / (time.perf_counter() - start) / 1e9)
    return best


def with_jax(matrix: np.ndarray) -> Callable[[], None]:
    """By XLA."""
    import jax

    a = jax.device_put(matrix)
    chain = jax.jit(lambda a: jax.lax.fori_loop(0, PRODUCTS, lambda _, x: a @ x, a))
    return lambda: chain(a).block_until_ready()


def with_torch(matrix: np.ndarray) -> Callable[[], None]:
    """By PyTorch."""
    import torch

    cuda = torch.cuda.is_available()
    a = torch.from_numpy(matrix).to("cuda" if cuda else "cpu")
    x, y = a.clone(), torch.empty_like(a)

    def products() -> None:
        for _ in range(PRODUCTS // 2):
            torch.mm(a, x, out=y)
            torch.mm(a, y, out=x)
        if cuda:
            torch.cuda.synchronize()

    return products


if __name__ == "__main__":
    print(rate({"jax": with_jax, "torch": with_torch}[sys.argv[1]]))
