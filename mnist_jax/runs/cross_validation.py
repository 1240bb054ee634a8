"""Cross-validation: scores out of fold, and nested cross-validation (Varma and Simon 2006).

The score of the best of many settings on the folds that chose it is optimistic: part of it is luck.
In nested cross-validation each outer fold is held out of everything; on the other examples inner
folds choose among all settings, and the outer fold evaluates what they have chosen.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from mnist_jax.data import datasets
from mnist_jax.data import splits as data_splits
from mnist_jax.data.splits import Split
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
    count = config.sweep.outer_folds
    rows: list[Row] = []
    for fold, part in enumerate(data_splits.outer_folds(run.splits, count, config.data.split_seed)):
        held_out = len(part.test.labels)
        run.log(f"outer fold {fold + 1} of {count}: {held_out:,} examples held out")
        estimated = any(row["compile_seconds"] for row in rows)
        repeats = 0 if estimated else count + 1 - fold
        found = select.choose(run._replace(splits=part), directory / f"outer-{fold}", repeats)
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


def out_of_fold(run: Run, selection: Selection) -> Float32[np.ndarray, "seeds train scores"] | None:
    """Score every training example by the trial of the chosen setting that held it out.

    Errors on the training set, thresholds and suspected labels should be evaluated by these scores.

    Returns:
      The task's scores for each seed; None without folds, or if a fold diverged.
    """
    if selection.folds is None:
        return None
    trained, places = selection.folds
    if trained.states.diverged[places].any():
        return None
    (images, labels), names = run.splits.train, run.splits.class_names
    count = run.config.sweep.folds
    held_out = datasets.folds(labels, count, run.config.data.split_seed)
    by_seed = []
    for start in range(0, len(places), count):  # folds are the innermost axis of the trials
        parts = [
            evaluation.evaluate_places(trained, [place], Split(images[own], labels[own]), names)
            for place, own in zip(places[start : start + count], held_out, strict=True)
        ]
        scores = np.concatenate([part.scores[0] for part in parts])
        by_seed.append(scores[np.argsort(np.concatenate(held_out))])
    return np.stack(by_seed)
