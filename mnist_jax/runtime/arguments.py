"""The command-line parser that all commands share."""

import argparse
import difflib
import functools
from collections.abc import Sequence
from typing import Any, NoReturn

from mnist_jax.types import UserError


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are `UserError`s and suggest flags."""

    def __init__(self, **kwargs: Any):
        formatter = functools.partial(argparse.HelpFormatter, width=80)
        super().__init__(formatter_class=formatter, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')}; see --help")

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse all arguments; unknown flags are reported before any other error.

        Raises:
          UserError: names the argument.
        """
        flags = self._option_string_actions
        for word in argv:
            flag = word.partition("=")[0]
            if flag == "--":
                break
            if flag.startswith("--") and flag not in flags:
                near = difflib.get_close_matches(flag, flags, n=1)
                hint = f"did you mean {near[0]}?" if near else "see --help"
                raise UserError(f"{flag}: no such flag; {hint}")
        values, extra = self.parse_known_args(argv)
        for word in extra:
            if word != "--":
                raise UserError(f"{word}: unexpected argument; flags are --NAME=VALUE, see --help")
        return values
