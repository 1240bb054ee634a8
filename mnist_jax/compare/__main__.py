"""Which run is better, by how much, and how sure: `python -m mnist_jax.compare RUN RUN ...`.

Every run is held against the first one, in lines of text and on a page.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mnist_jax import config as configs
from mnist_jax.compare import compare_page, comparison
from mnist_jax.compare.comparison import Run, Versus
from mnist_jax.runtime import exits
from mnist_jax.types import UserError
from mnist_jax.workdir import files

PAGE = "compare.html"


def describe(run: Run) -> str:
    """A run's accuracy with what is known of its spread."""
    found = comparison.accuracy(run)
    if run.alone:
        assert found.low is not None
        assert found.high is not None
        spread = f"95% interval {100 * found.low:.2f} to {100 * found.high:.2f}, one training"
        return f"test accuracy {100 * found.mean:.2f}%  ({spread})"
    what = "accuracy on held-out folds" if run.folds else "test accuracy"
    sd = f" ± {100 * found.sd:.2f}" if found.sd is not None else ""
    return f"{what} {100 * found.mean:.2f}%{sd}  (n = {found.n})"


def sentence(first: Run, other: Run, found: Versus) -> str:
    """How another run compares with the first one."""
    compared, verdict = found.compared, comparison.verdict(found.compared)
    if compared.p_value is None:
        return f"{verdict}: the same in all {compared.n} trials, so that there is no t-test"
    if first.alone and other.alone:
        return (
            f"{verdict}: {found.decisions.only_b:,} test examples right that the first gets "
            f"wrong, {found.decisions.only_a:,} the other way round; McNemar's exact test: "
            f"p = {compared.p_value:.2g}"
        )
    assert compared.low is not None
    assert compared.high is not None
    return (
        f"{verdict}: 95% interval {100 * compared.low:+.2f} to {100 * compared.high:+.2f} points; "
        f"paired t-test over {_what(first, compared.n)}: p = {compared.p_value:.2g}"
    )


def _what(run: Run, count: int) -> str:
    if not run.folds:
        return f"{count} trials"
    return f"{run.folds} folds, allowing for the examples that they share"


def compare(runs: Sequence[Run], found: Sequence[Versus]) -> str:
    """Text for a person: every run, and how it compares with the first.

    Args:
      runs: two or more.
      found: of each run but the first.
    """
    first = runs[0]
    lines = [f"{first.name}: {describe(first)}", *_notes(first)]
    for run, versus in zip(runs[1:], found, strict=True):
        lines += [f"{run.name}: {describe(run)}", *_notes(run)]
        changed = dict(configs.flatten(run.config))
        for key in configs.differences(first.config, run.config):
            has = f"= {changed[key]}" if key in changed else "is not there"
            lines.append(f"  config.{key} {has}")
        lines.append(f"  {sentence(first, run, versus)}")
    return "\n".join(lines)


def _notes(run: Run) -> list[str]:
    found = comparison.flattery(run)
    return [f"  {found}"] if found else []


@exits.command
def main(argv: Sequence[str]) -> int:
    """Prints the comparison and writes its page; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m mnist_jax.compare",
        description="Which run is better than the first, by how much, and how sure that is.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="workdirs, two or more")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help=f"default: {PAGE} beside the first workdir"
    )
    options = parser.parse_args(argv)
    if len(options.runs) < 2:
        raise UserError("RUN: give at least two workdirs")
    runs = [comparison.read(workdir) for workdir in options.runs]
    found = [comparison.versus(runs[0], run) for run in runs[1:]]
    print(compare(runs, found))
    page = options.page or options.runs[0].parent / PAGE
    text = compare_page.render(runs, found, comparison.test_images(runs[0]))
    files.write(page, text)
    print(f"page: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
