"""Random keys as a pure function of (seed, stream, step): nothing to carry, nothing to save."""

import zlib

import jax
from jaxtyping import Array, Int, PRNGKeyArray

Key = PRNGKeyArray


def stream(root: Key, name: str, step: int | Int[Array, ""]) -> Key:
    """The key of one use of randomness at one step.

    Args:
      root: `jax.random.key(seed)`.
      name: what the randomness is for; every use has its own ("shuffle", "dropout").
      step: counts the uses.
    """
    # crc32, because Python's own hash of a string differs from process to process.
    return jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(name.encode())), step)
