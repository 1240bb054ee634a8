"""Paths that users give."""

from pathlib import Path

from mnist_jax.types import UserError


def expand(path: str) -> Path:
    """Replace ~ and ~NAME by the home directory.

    Raises:
      UserError: the system knows no such home directory.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{path}: no such home directory is known; set $HOME, or give the path without ~"
        ) from error
