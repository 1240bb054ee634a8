"""Exit codes of commands; tracebacks only for bugs."""

import functools
import logging
import signal
from collections.abc import Callable, Sequence

from mnist_jax.runtime import output
from mnist_jax.types import UserError, printable

Main = Callable[[Sequence[str]], int]


def command(main: Main) -> Main:
    """Decorate a function of a command's arguments that returns its exit code.

    A user error prints one line and exits with 2. After Ctrl-C, or when the reader of the output is
    gone (`| head`), the exit code is 128 plus the number of SIGINT or SIGPIPE.
    """

    @functools.wraps(main)
    def wrapped(argv: Sequence[str]) -> int:
        output.prepare()
        # Without a home directory Matplotlib warns of its cache, and then works without one.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        try:
            code = main(argv)
            output.flush()
        except UserError as error:
            if isinstance(error, output.Unwritable) and error.closed_pipe:
                return 128 + signal.SIGPIPE
            output.warn(f"error: {printable(str(error))}")
            return 2
        except KeyboardInterrupt:
            output.warn("stopped")
            return 128 + signal.SIGINT
        return code

    return wrapped
