"""Cross-validation: scores out of fold, and nested cross-validation (Varma and Simon 2006).

The score of the best of many settings on the folds that chose it is optimistic: part of it is luck.
In nested cross-validation each outer fold is held out of everything; on the other examples inner
folds choose among all settings, and the outer fold evaluates what they have chosen.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from mnist_jax.data import splits as data_splits
from mnist_jax.data.splits import Split, Splits
from mnist_jax.report import sweep_plots
from mnist_jax.runs import evaluation, select
from mnist_jax.runs.select import Run, Selection
from mnist_jax.types import Row


def nested(run: Run, directory: Path) -> list[Row]:
    """Choose and evaluate once for each outer fold, resuming from existing checkpoints.

    Args:
      run: its sweep has `outer_folds`, `folds` and several settings; the test split is not used.
      directory: of the checkpoints; each outer fold has its own folder in it.

    Returns:
      For each outer fold the chosen `setting` and its `overrides`, the number of `held_out`
      examples, the `score` on them (the mean over seeds) and the seconds.

    Raises:
      UserError: as `select.choose`.
      progress.Stopped: a signal asked to stop; everything so far is saved.
    """
    config = run.config
    count, rows = config.sweep.outer_folds, []
    for fold, part in enumerate(data_splits.outer_folds(run.splits, count, config.data.split_seed)):
        held_out = len(part.test.labels)
        run.log(f"outer fold {fold + 1} of {count}: {held_out:,} examples held out")
        found = select.choose(run._replace(splits=part), directory / f"outer-{fold}")
        _, reports = evaluation.evaluate_trials(found, part.test, part.class_names)
        overrides = found.settings[found.chosen]["overrides"]
        score = float(np.mean([evaluation.score_of(report, found.score) for report in reports]))
        run.log(
            f"outer fold {fold + 1} of {count}: {sweep_plots.name(overrides)}: "
            f"held-out {select.format_score(found.score, score)}"
        )
        rows.append(
            {
                "fold": fold,
                "setting": found.chosen,
                "overrides": overrides,
                "held_out": held_out,
                "score": score,
                "train_seconds": found.train_seconds,
                "compile_seconds": found.compile_seconds,
            }
        )
    return rows


def out_of_fold(
    selection: Selection, splits: Splits, folds: int
) -> Float32[np.ndarray, "seeds train scores"] | None:
    """Score every training example by the trial of the chosen setting that held it out.

    Errors on the training set, thresholds and suspected labels should be judged by these scores.

    Returns:
      The task's scores for each seed; None without folds, or if a fold diverged.
    """
    if selection.folds is None:
        return None
    trained, places = selection.folds
    if trained.states.diverged[places].any():
        return None
    held_out, images = np.asarray(trained.group.data.folds.held_out), splits.train.images
    fold_of = np.asarray(trained.group.trials.fold)
    by_seed = []
    for start in range(0, len(places), folds):
        scores: Float32[np.ndarray, "train scores"] | None = None
        for place in places[start : start + folds]:
            index = held_out[fold_of[place]]
            index = index[index >= 0]
            part = Split(images[index], splits.train.labels[index])
            own, _ = evaluation.evaluate_places(trained, [place], part, splits.class_names)
            if scores is None:
                scores = np.empty((len(images), own.shape[-1]), np.float32)
            scores[index] = own[0]
        by_seed.append(scores)
    return np.stack(by_seed)
