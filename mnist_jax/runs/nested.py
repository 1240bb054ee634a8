"""Nested cross-validation (Varma and Simon 2006): how good is the way of choosing a setting?

The accuracy of the best of many settings on the folds that chose it is too good: part of it is
luck. Here each outer fold is kept from everything; on the other examples inner folds choose among
all settings, as a run without outer folds does, and the fold judges what they have chosen.
"""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from mnist_jax.data import splits as data_splits
from mnist_jax.data.splits import Splits
from mnist_jax.report import sweep_plots
from mnist_jax.runs import choice
from mnist_jax.runtime import progress
from mnist_jax.types import Row


def judge(config: ConfigDict, splits: Splits, directory: Path, echo: progress.Echo) -> list[Row]:
    """Chooses and judges once for each outer fold, going on from the checkpoints that are there.

    Args:
      config: its `members` have `outer_folds`, `folds` and several settings.
      splits: the test split is not looked at.
      directory: of the checkpoints; each outer fold has its own folder in it.
      echo: told lines for a person.

    Returns:
      For each outer fold the chosen `setting` and its `overrides`, how many examples were
      `held_out`, the `accuracy` on them (the mean over config.members.seeds) and the seconds.

    Raises:
      UserError: as `choice.choose`.
      progress.Stopped: a signal asked to stop; everything so far is saved.
    """
    count, rows = config.members.outer_folds, []
    for fold, part in enumerate(data_splits.outer_folds(splits, count, config.seed)):
        held_out = len(part.test.labels)
        echo(f"outer fold {fold + 1} of {count}: {held_out:,} examples held out")
        found = choice.choose(config, part, directory / f"outer-{fold}", echo)
        _, judged = choice.judge(found, part.test)
        overrides = found.settings[found.setting]["overrides"]
        accuracy = float(np.mean([report["accuracy"] for report in judged]))
        echo(
            f"outer fold {fold + 1} of {count}: {sweep_plots.name(overrides)}: "
            f"held-out accuracy {100 * accuracy:.2f}%"
        )
        rows.append(
            {
                "fold": fold,
                "setting": found.setting,
                "overrides": overrides,
                "held_out": held_out,
                "accuracy": accuracy,
                "train_seconds": found.train_seconds,
                "compile_seconds": found.compile_seconds,
            }
        )
    return rows
