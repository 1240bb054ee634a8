"""Compare runs with the first one: `python -m mnist_jax.compare RUN RUN ...`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from mnist_jax.runtime import backend, exits, output
from mnist_jax.runtime.arguments import Parser
from mnist_jax.types import UserError, printable

PAGE = "compare.html"


@exits.command
def main(argv: Sequence[str]) -> int:
    """Print the comparison, write its page and return the exit code."""
    parser = Parser(
        prog="python -m mnist_jax.compare",
        description="Say which runs are better than the first, by how much and how surely.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="workdirs, two or more; what cannot be compared is skipped",
    )
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help=f"default: {PAGE} next to the first workdir"
    )
    options = parser.parse(argv)
    if len(options.runs) < 2:
        raise UserError("RUN: give at least two workdirs")
    # Imported here because Matplotlib takes a second, which --help and errors do not need.
    backend.check()
    from mnist_jax.compare import compare_page, compare_text, comparison
    from mnist_jax.workdir import files

    runs, found, skipped = comparison.read_all(options.runs)
    if len(runs) < 2:
        more = f"; {len(skipped) - 1} more cannot be compared" if len(skipped) > 1 else ""
        raise UserError(f"{skipped[0]}{more}")
    for reason in skipped:
        output.warn(f"skipped: {printable(reason)}")
    output.say(compare_text.compare(runs, found))
    page = options.page or options.runs[0].parent / PAGE
    text = compare_page.render(runs, found, comparison.test_images(runs[0]))
    files.write(page, text)
    output.say(f"page: {printable(str(page))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
