"""Train or evaluate: `python -m mnist_jax.main --config=configs/cnn.py`."""

import sys
from collections.abc import Sequence

from mnist_jax.cli import flags
from mnist_jax.runtime import backend, exits, output


@exits.command
def main(argv: Sequence[str]) -> int:
    """Run the command that the arguments select and return its exit code.

    0: success; 2: user error, reported in one line; 128 + n: stopped by signal n.
    """
    try:
        return _dispatch(argv)
    except KeyboardInterrupt:
        output.warn("stopped at once; the same command without --overwrite resumes the run")
        return 130


def _dispatch(argv: Sequence[str]) -> int:
    options = flags.parse(argv)
    if options.help:
        output.say(flags.help_text(options.config))
        return 0
    flags.refuse_ineffective(options)
    # Imported here because JAX takes a second, which --help and errors do not need.
    if options.cluster is not None:
        from mnist_jax.runtime import multihost

        multihost.start(*options.cluster)
    backend.check()
    from mnist_jax.cli import commands
    from mnist_jax.runtime import xla

    xla.enable_cache(options.compilation_cache)
    if options.mode == "evaluate":
        return commands.evaluate(options)
    return commands.summarize(options) if options.summary else commands.train(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
