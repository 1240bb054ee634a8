"""The console command: `mnist-jax train --config=cnn`, or `python -m mnist_jax train ...`."""

import difflib
import importlib
import sys
from collections.abc import Sequence

from mnist_jax.runtime import exits, output
from mnist_jax.types import UserError

USAGE = """\
usage: mnist-jax COMMAND [ARGUMENTS]...

  train --config=cnn             train a net, or resume a run; cnn, fast, mlp or
                                 linear, or your own file
  evaluate --name=NAME           evaluate a run's best checkpoint
  predict --workdir=RUN IMAGES   classify your pictures
  compare RUN RUN...             say which runs are better than the first
  explore --dataset=mnist        show a data set on a page
  list [DIR]                     list all runs below a folder (default: runs)

mnist-jax COMMAND --help lists the arguments of a command.
"""
COMMANDS = {  # the module of each command, and its first arguments
    "train": ("mnist_jax.main",),
    "evaluate": ("mnist_jax.main", "--mode=evaluate"),
    "predict": ("mnist_jax.predict.__main__",),
    "compare": ("mnist_jax.compare.__main__",),
    "explore": ("mnist_jax.explore.__main__",),
    "list": ("mnist_jax.list",),
}


@exits.command
def main(argv: Sequence[str]) -> int:
    """Run a command and return its exit code."""
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help", "help"):
        output.say(USAGE, end="")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        raise UserError(f"{name}: no such command; {hint}")
    module, *first = COMMANDS[name]
    return int(importlib.import_module(module).main([*first, *rest]))


def run() -> int:
    """Run the command that was typed."""
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
