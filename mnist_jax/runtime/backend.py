"""JAX's backend: whether JAX can start in its environment."""

from mnist_jax.types import UserError


def check() -> None:
    """Start JAX; call this before other modules import it.

    Raises:
      UserError: a variable of the environment prevents it.
    """
    try:
        import jax
    except ValueError as error:
        raise UserError(f"JAX cannot start: {error}; correct or unset this variable") from error
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:
        platforms = jax.config.jax_platforms  # type: ignore[attr-defined]
        reason = " ".join(str(error).split()) or "no such device is found"
        raise UserError(
            f"JAX_PLATFORMS={platforms or ''}: JAX cannot start ({reason}); install JAX's plugin "
            "for this device, or set JAX_PLATFORMS=cpu"
        ) from error
