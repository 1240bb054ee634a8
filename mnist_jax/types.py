"""Types that all of the package shares; importing them does not import JAX.

Shapes are written with jaxtyping: `Float[Array, "batch classes"]` is a float array of two axes.
"""

import json
import os
import unicodedata
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ml_collections import ConfigDict

if TYPE_CHECKING:
    from jax import Array as Array
else:
    Array = Any  # jaxtyping still checks the shape and dtype of `Float[Array, ...]`

PyTree = Any
Row = dict[str, Any]  # of metrics.jsonl, trials.jsonl or a table
Fields: TypeAlias = ConfigDict | Mapping[str, Any]  # a part of the config, such as `config.optim`


class Option(NamedTuple):
    """A key of the config."""

    default: Any  # a type: None unless a value of it is given
    help: str
    allowed: str | Collection[str] = ()  # an interval such as "[0, 1)", or names; (): anything
    optional: bool = False  # None unless it is set; None stands for `default`

    @property
    def kind(self) -> type:
        """The type of its values; object: the reader of the key checks them."""
        kind = self.default if isinstance(self.default, type) else type(self.default)
        return object if kind is dict else kind

    @property
    def nullable(self) -> bool:
        """True if its value may be None."""
        return self.optional or isinstance(self.default, type)


def resolve(config: Fields, options: Mapping[str, Option]) -> dict[str, Any]:
    """Return a section of the config in which None is replaced by the default of the option."""
    return {
        key: options[key].default if value is None and key in options else value
        for key, value in config.items()
    }


def unread(config: Fields, chosen: str, readers: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Return the keys of a section that are set, but not read by the chosen component.

    Args:
      config: a section, such as `config.optim`.
      chosen: the name of a component.
      readers: the keys that each component reads; other keys are read by all.

    Returns:
      The end of an error message by key, as in {"momentum": "adam does not use it; momentum does"}.
    """
    found = {}
    for key, value in config.items():
        names = [name for name, keys in readers.items() if key in keys]
        if value is not None and names and chosen not in names:
            listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
            verb = "does" if len(names) == 1 else "do"
            found[key] = f"{chosen} does not use it; {listed} {verb}"
    return found


def plain(value: Any) -> Any:
    """Convert lists and dicts, or JSON text of them from the command line, to what JSON stores.

    Raises:
      ValueError: the text is not JSON.
      TypeError: JSON cannot store the value.
    """
    return json.loads(value if isinstance(value, str) else json.dumps(value))


def printable(text: str) -> str:
    """Replace control characters, and bytes that are not UTF-8, in a name or path.

    Spaces of all kinds stay: the names of macOS's screenshots have narrow ones.
    """
    return "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else "\N{REPLACEMENT CHARACTER}"
        for c in os.fsencode(text).decode(errors="replace")
    )


class UserError(Exception):
    """An error that the user can fix: one line on stderr, exit code 2, no traceback.

    The message names what is wrong, where, and what to do.
    """
