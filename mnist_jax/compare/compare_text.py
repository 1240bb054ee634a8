"""A comparison of runs as lines of text."""

from collections.abc import Sequence

from mnist_jax import config as configs
from mnist_jax.compare import comparison
from mnist_jax.compare.comparison import Run, Versus


def describe(run: Run) -> str:
    """Return a run's accuracy and its spread."""
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
    """Return how another run compares with the first."""
    compared, verdict = found.compared, comparison.verdict(found.compared)
    if compared.p_value is None:
        return f"{verdict}: the same in all {compared.n} trials; no t-test is possible"
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
    """Return lines on each run and on how it compares with the first.

    Args:
      runs: two or more.
      found: the comparison of each other run with the first.
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
