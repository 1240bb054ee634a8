"""Exit codes of commands, without tracebacks for user errors, Ctrl-C and closed pipes."""

import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence

from mnist_jax.types import UserError

Main = Callable[[Sequence[str]], int]


def command(main: Main) -> Main:
    """Decorate a function that takes a command's arguments and returns its exit code.

    A user error is printed in one line, with exit code 2. Ctrl-C and a closed pipe (`| head`) exit
    as if SIGINT or SIGPIPE had ended the process.
    """

    @functools.wraps(main)
    def wrapped(argv: Sequence[str]) -> int:
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
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
            )  # else Python reports it at exit
            return 128 + signal.SIGPIPE

    return wrapped
