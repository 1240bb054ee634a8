"""Types that all of the package shares; importing them does not import JAX.

Shapes are written with jaxtyping: `Float[Array, "batch classes"]` is a float array of two axes.
"""

import json
import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ml_collections import ConfigDict

if TYPE_CHECKING:
    from jax import Array as Array
else:
    Array = Any  # jaxtyping still checks the shape and dtype of `Float[Array, ...]`

PyTree = Any
Row = dict[str, Any]  # of metrics.jsonl, trials.jsonl or a table
Fields = ConfigDict | Mapping[str, Any]  # a part of the config, such as `config.optim`


class Option(NamedTuple):
    """A key of the config."""

    default: Any  # a type: None unless a value of it is given
    help: str
    allowed: str | Collection[str] = ()  # an interval such as "[0, 1)", or names; (): anything


def plain(value: Any) -> Any:
    """Convert lists and dicts, or JSON text of them from the command line, to what JSON stores.

    Raises:
      ValueError: the text is not JSON.
      TypeError: JSON cannot store the value.
    """
    return json.loads(value if isinstance(value, str) else json.dumps(value))


def printable(text: str) -> str:
    """Replace control characters, and bytes that are not UTF-8, in a name or path."""
    return "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for c in os.fsencode(text).decode(errors="replace")
    )


class UserError(Exception):
    """An error that the user can fix: one line on stderr, exit code 2, no traceback.

    The message names what is wrong, where, and what to do.
    """
