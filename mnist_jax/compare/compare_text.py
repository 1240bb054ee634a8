"""A comparison of runs as lines of text."""

from collections.abc import Sequence

from mnist_jax import config as configs
from mnist_jax.compare import comparison
from mnist_jax.compare.comparison import Run, Versus
from mnist_jax.report import formats
from mnist_jax.types import printable


def describe(run: Run) -> str:
    """Return a run's accuracy and its spread."""
    found = comparison.accuracy(run)
    accuracy = f"{100 * found.mean:.2f}%"
    what = "accuracy on held-out folds" if run.folds else "test accuracy"
    sd = f" ± {100 * found.sd:.2f}" if found.sd is not None else ""
    n = "one training" if run.alone else f"n = {found.n}"
    intervals = [
        f"{question}: {formats.percent(low)} to {formats.percent(high)}"
        for question, low, high in comparison.intervals(run)
    ]
    return f"{what} {accuracy}{sd}  ({'; '.join([n, *intervals])})"


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
    low, high = formats.difference(compared.low), formats.difference(compared.high)
    what = f"{compared.n} trials"
    if first.folds:
        what = f"{first.folds} folds, allowing for the examples that they share"
    on = "new images" if first.folds else "new seeds on these test images"
    bounds = found.on_new_images
    both = bounds and " to ".join(map(formats.difference, bounds))
    return (
        f"{verdict}: 95% interval {low} to {high} points for {on}"
        f"{f', {both} for new seeds and new images' if both else ''}; "
        f"paired t-test over {what}: p = {compared.p_value:.2g}"
    )


def compare(runs: Sequence[Run], found: Sequence[Versus]) -> str:
    """Return lines on each run and on how it compares with the first.

    Args:
      runs: two or more.
      found: the comparison of each other run with the first.
    """
    lines = []
    for run, versus in zip(runs, (None, *found), strict=True):
        lines.append(f"{run.name}: {describe(run)}")
        if flattery := comparison.flattery(run):
            lines.append(f"  {flattery}")
        changed = dict(configs.flatten(run.config))
        for key in configs.differences(runs[0].config, run.config, same_data=True):
            has = f"= {changed[key]}" if key in changed else "is not there"
            lines.append(printable(f"  config.{key} {has}"))
        if versus:
            lines.append(f"  {sentence(runs[0], run, versus)}")
    return "\n".join(lines)
