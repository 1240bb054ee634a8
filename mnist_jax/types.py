"""The values that flow through the program, and the one error a user can cause.

Shapes are written with jaxtyping: `Float[Array, "batch classes"]` is a float array of two axes.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

PyTree = Any
Row = dict[str, Any]  # of metrics.jsonl, trials.jsonl or a table
Fields = ConfigDict | Mapping[str, Any]  # a part of the config, such as `config.optim`


class UserError(Exception):
    """A mistake that the user can mend: told in one line on stderr, exit code 2, no traceback.

    The message says what is wrong, where, and what to do.
    """
