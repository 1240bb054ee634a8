"""Random keys as a pure function of (seed, stream, step), so that none must be saved."""

import zlib

import jax
from jaxtyping import Array, Int, PRNGKeyArray

Key = PRNGKeyArray


def stream(root: Key, name: str, step: int | Int[Array, ""]) -> Key:
    """Return the key for one use of randomness at one step.

    Args:
      root: `jax.random.key(seed)`.
      name: of the use ("shuffle", "dropout"); each use has its own.
      step: number of the draw.
    """
    # crc32: Python's hash of a string differs between processes.
    return jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(name.encode())), step)
