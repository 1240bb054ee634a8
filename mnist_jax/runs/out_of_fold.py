"""Scores of every training example by the member of a cross-validation that did not learn from it.

Errors of the training set, thresholds and suspected labels are to be judged by these.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float32

from mnist_jax.runs import run_group
from mnist_jax.runs.run_group import Finished
from mnist_jax.runtime import xla
from mnist_jax.train import trials


def scores(finished: Finished, places: Sequence[int]) -> Float32[np.ndarray, "train scores"]:
    """The task's scores of all training examples, each from where its fold was held out.

    Args:
      finished: a group of a run with folds.
      places: in it, of one member a fold.
    """
    group, best = finished.group, finished.course.best
    folds = group.data.folds
    assert folds is not None, "only a cross-validation holds examples out"
    index = np.zeros(group.plan.width, np.int32)
    args = group.plan, best, group.members, index, group.data
    program = xla.compile_lowered(trials.score_held_out.lower(*args))
    held_out, fold = np.asarray(folds.held_out), np.asarray(group.members.fold)
    found: Float32[np.ndarray, "train scores"] | None = None
    for chunk in run_group.chunks(places, group.plan.width):
        there = run_group.filled(chunk, group)
        out = jax.device_get(program(best, group.members, there, group.data))
        if found is None:
            found = np.empty((len(folds.of), out.shape[-1]), np.float32)
        for place, own in zip(chunk, out[: len(chunk)], strict=True):
            examples = held_out[fold[place]]
            found[examples[examples >= 0]] = own[examples >= 0]
    assert found is not None, "there is a member for each fold"
    return found
