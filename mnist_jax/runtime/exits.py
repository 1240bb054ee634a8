"""Exit codes of commands; tracebacks only for bugs."""

import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence

from mnist_jax.types import UserError, printable

Main = Callable[[Sequence[str]], int]


def command(main: Main) -> Main:
    """Decorate a function of a command's arguments that returns its exit code.

    A user error prints one line and exits with 2. After Ctrl-C, or when the reader of the output is
    gone (`| head`), the exit code is that of SIGINT or SIGPIPE.
    """

    @functools.wraps(main)
    def wrapped(argv: Sequence[str]) -> int:
        try:
            code = main(argv)
            sys.stdout.flush()
            return code
        except UserError as error:
            print(f"error: {printable(str(error))}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            return 128 + signal.SIGINT
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python reports it
            return 128 + signal.SIGPIPE

    return wrapped
