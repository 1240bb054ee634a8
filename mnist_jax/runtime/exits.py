"""How a command ends: with an exit code, and without a traceback where nothing of ours is wrong."""

import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence

from mnist_jax.types import UserError

Main = Callable[[Sequence[str]], int]


def command(main: Main) -> Main:
    """Decorates what takes a command's arguments and returns its exit code.

    A user's mistake is told in one line, and the code is 2. At Ctrl-C, and where nobody reads what
    is printed any more, as after `| head`, the command ends as if SIGINT or SIGPIPE had ended it.
    """

    @functools.wraps(main)
    def told(argv: Sequence[str]) -> int:
        try:
            code = main(argv)
            sys.stdout.flush()
            return code
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            return 128 + signal.SIGINT
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tells of it
            return 128 + signal.SIGPIPE

    return told
