"""Which run is better, by how much, and how sure: `python -m mnist_jax.compare RUN RUN ...`.

Every run is held against the first one. Members of the same seed and fold are pairs; two single
trainings share their test examples, which McNemar's test looks at.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mnist_jax import config as configs
from mnist_jax import stats
from mnist_jax import workdir as files
from mnist_jax.types import UserError

_SURE = 0.05  # a smaller p-value is called a difference


class Run(NamedTuple):
    """A finished run, read from its workdir."""

    name: str
    config: dict[str, Any]
    fingerprint: str  # of its data
    # Test accuracies by seed, or where there are folds those of the held-out ones by all that says
    # which examples they are; what is under the same key in two runs makes a pair.
    accuracies: dict[tuple[int, ...], float]
    correct: np.ndarray | None  # of a single training: which test examples it gets right


def read(workdir: Path) -> Run:
    """A finished run; of a sweep, its chosen setting.

    Raises:
      UserError: there is none.
    """
    config, fingerprint = files.read_config(workdir)
    if not (workdir / files.SUMMARY).exists():
        raise UserError(f"{workdir}: is not finished; the command that began it goes on with it")
    summary = files.read_json(workdir / files.SUMMARY)
    plain = config.to_dict()
    accuracies: dict[tuple[int, ...], float] = {}
    if "members" not in summary:
        with np.load(workdir / files.PREDICTIONS) as stored:
            correct = stored["logits"].argmax(-1) == stored["labels"]
        accuracies[summary["seed"],] = summary["test_accuracy"]
        return Run(str(workdir), plain, fingerprint, accuracies, correct)
    folds = summary["folds"]
    for row in files.read_rows(workdir / files.MEMBERS):
        accuracy = row.get("val_accuracy" if folds else "test_accuracy")
        if row["setting"] == summary["chosen"] and accuracy is not None:
            pair = (row["seed"], row["fold"], folds, summary["seed"]) if folds else (row["seed"],)
            accuracies[pair] = accuracy
    return Run(str(workdir), plain, fingerprint, accuracies, None)


def sentence(first: Run, other: Run) -> str:
    """How another run compares with the first one.

    Raises:
      UserError: they have other data.
    """
    if first.fingerprint != other.fingerprint:
        raise UserError(f"{other.name}: has other data than {first.name}; nothing can be compared")
    if first.correct is not None and other.correct is not None:
        found = stats.mcnemar(first.correct, other.correct)
        difference = (found.only_b - found.only_a) / len(first.correct)
        how = (
            f"{found.only_b:,} test examples right that the first gets wrong, {found.only_a:,} the "
            f"other way round; McNemar's exact test: p = {found.p_value:.2g}"
        )
        return f"{_verdict(difference, found.p_value)}: {how}"
    pairs = sorted(first.accuracies.keys() & other.accuracies.keys())
    if len(pairs) < 2:
        raise UserError(
            f"{other.name}: has fewer than two seeds or folds in common with {first.name}; train "
            "both with the same config.seed, config.members.seeds and config.members.folds"
        )
    values = [[run.accuracies[pair] for pair in pairs] for run in (first, other)]
    compared = stats.paired(*values)
    assert compared.low is not None
    assert compared.high is not None
    if compared.p_value is None:
        verdict = _verdict(compared.difference, 1.0)
        return f"{verdict}: the same in all {compared.n} members, which a t-test knows nothing of"
    return (
        f"{_verdict(compared.difference, compared.p_value)}: 95% interval "
        f"{100 * compared.low:+.2f} to {100 * compared.high:+.2f} points; paired t-test over "
        f"{compared.n} members: p = {compared.p_value:.2g}"
    )


def _verdict(difference: float, p_value: float) -> str:
    points = f"{100 * difference:+.2f} points"
    if p_value >= _SURE:
        return f"no clear difference ({points})"
    return f"{'better' if difference > 0 else 'worse'} ({points})"


def describe(run: Run) -> str:
    """A run's accuracy with what is known of its spread."""
    if run.correct is not None:
        low, high = stats.wilson(int(run.correct.sum()), len(run.correct))
        spread = f"95% interval {100 * low:.2f} to {100 * high:.2f}, one training"
        return f"test accuracy {100 * run.correct.mean():.2f}%  ({spread})"
    found = stats.describe(list(run.accuracies.values()))
    what = "accuracy on held-out folds" if run.config["members"]["folds"] else "test accuracy"
    sd = f" ± {100 * found.sd:.2f}" if found.sd is not None else ""
    return f"{what} {100 * found.mean:.2f}%{sd}  (n = {found.n})"


def compare(runs: Sequence[Run]) -> str:
    """Text for a person: every run, and how it compares with the first."""
    lines = []
    for run in runs:
        lines.append(f"{run.name}: {describe(run)}")
        if run is runs[0]:
            continue
        differ = configs.differences(runs[0].config, run.config)
        changed = dict(configs.flatten(run.config))
        for key in differ:
            lines.append(f"  config.{key} = {changed.get(key)}")
        lines.append(f"  {sentence(runs[0], run)}")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Prints the comparison; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m mnist_jax.compare",
        description="Which run is better than the first, by how much, and how sure that is.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="workdirs, two or more")
    options = parser.parse_args(argv)
    try:
        if len(options.runs) < 2:
            raise UserError("RUN: give at least two workdirs")
        print(compare([read(workdir) for workdir in options.runs]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
