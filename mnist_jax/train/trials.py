"""Trials: many trainings as one more axis, vmapped.

A trial is a seed, hyperparameters (`state.Hparams`) and, in cross-validation, a fold. A plain run
is one trial. The functions of `train.step` train one; here they are lifted over an axis of trials.
A program trains `Plan.width` of them at once; with width 1 nothing is vmapped, so that one trial
has the bits and the cost of `train.step` alone. A trial that diverges or stops early does not
affect the others.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int, Int32, Shaped, UInt8

from mnist_jax import train
from mnist_jax.analysis import metrics
from mnist_jax.data import augment
from mnist_jax.runtime import sharding
from mnist_jax.runtime.prng import Key
from mnist_jax.train import evaluate
from mnist_jax.train.state import Hparams, State
from mnist_jax.train.step import Examples, Norms, Recipe
from mnist_jax.types import PyTree


class Folds(NamedTuple):
    """Indices of the examples that each fold trains on and holds out."""

    of: Int32[Array, "n"]  # the fold that holds an example out
    train: Int32[Array, "folds train"]  # equally many in each fold: a surplus one is left out
    held_out: Int32[Array, "folds val"]  # -1 where a fold has one less than others


class Data(NamedTuple):
    """The examples of all trials, replicated on every device."""

    images: UInt8[Array, "train 28 28 1"]
    labels: Shaped[Array, "train ..."]
    val_images: UInt8[Array, "val 28 28 1"]  # none in cross-validation
    val_labels: Shaped[Array, "val ..."]
    folds: Folds | None
    order: Key | None  # root of the order that all trials share; None: each has its own

    @property
    def num_train(self) -> int:
        """Examples of an epoch; with shared batches the held-out ones too."""
        if self.folds is None or self.order is not None:
            return len(self.labels)
        return self.folds.train.shape[1]

    @property
    def validates(self) -> bool:
        """Return whether there are validation or held-out examples."""
        return self.folds is not None or len(self.val_labels) > 0


class Trials(NamedTuple):
    """The inputs of each trial; every array has a leading axis of trials."""

    root: Key
    hparams: Hparams
    fold: Int32[Array, "*trials"] | None


class TrialState(NamedTuple):
    """Everything that training changes; every array has a leading axis of trials."""

    state: State
    best: PyTree  # variables of the best epoch; without validation or with folds of the last one
    best_epoch: Int32[Array, "*trials"]
    best_score: Float32[Array, "*trials"]
    best_loss: Float32[Array, "*trials"]
    waited: Int32[Array, "*trials"]  # epochs since the best one
    active: Bool[Array, "*trials"]  # still training
    diverged: Bool[Array, "*trials"]


class EpochMetrics(NamedTuple):
    """Measurements of an epoch; every array has a leading axis of trials.

    Without validation its numbers are NaN, as is the accuracy of a task that has none.
    """

    step: Int32[Array, "*trials"]
    examples: Int32[Array, "*trials"]  # trained on
    train_loss: Float32[Array, "*trials"]
    train_accuracy: Float32[Array, "*trials"]
    val_loss: Float32[Array, "*trials"]
    val_accuracy: Float32[Array, "*trials"]
    val_score: Float32[Array, "*trials"]  # the task's selection score
    learning_rate: Float32[Array, "*trials"]  # of the last step
    norms: Norms  # of the last step
    active: Bool[Array, "*trials"]  # after the epoch
    diverged: Bool[Array, "*trials"]


class Plan(NamedTuple):
    """The static parts of training trials."""

    recipe: Recipe  # with a mesh
    width: int  # trials of a program
    threads: int  # programs that run at the same time
    patience: int  # epochs without a better validation until a trial stops; 0: never


def make_folds(held_out: tuple[Int[np.ndarray, " _"], ...], num_examples: int) -> Folds:
    """Build `Folds` from the held-out indices of each fold, as `datasets.folds` returns them."""
    of = np.empty(num_examples, np.int32)
    for fold, index in enumerate(held_out):
        of[index] = fold
    rest = [np.flatnonzero(of != fold) for fold in range(len(held_out))]
    fewest, most = min(map(len, rest)), max(map(len, held_out))
    padded = [np.pad(x, (0, most - len(x)), constant_values=-1) for x in held_out]
    return Folds(
        of=jax.device_put(of),
        train=jax.device_put(np.stack([index[:fewest] for index in rest]).astype(np.int32)),
        held_out=jax.device_put(np.stack(padded).astype(np.int32)),
    )


@partial(jax.jit, static_argnames="plan")
def init(plan: Plan, trials: Trials) -> TrialState:
    """Return the states before the first epoch."""

    def one(trial: Trials) -> TrialState:
        state = train.init_state(plan.recipe, trial.hparams, trial.root)
        return TrialState(
            state=state,
            best=jax.tree.map(jnp.copy, train.variables(state)),
            best_epoch=jnp.int32(0),
            best_score=jnp.float32(-jnp.inf),
            best_loss=jnp.float32(jnp.inf),
            waited=jnp.int32(0),
            active=jnp.bool_(True),
            diverged=jnp.bool_(False),
        )

    return sharding.replicate(plan.recipe.mesh, jax.vmap(one)(trials))


@partial(jax.jit, static_argnames="plan", donate_argnames="state")
def train_epoch(
    plan: Plan, state: State, trials: Trials, epoch: Int32[Array, ""], data: Data
) -> tuple[State, train.Metrics, Norms]:
    """Train some trials for one epoch.

    Args:
      plan: static; its width is the number of trials.
      state: of these trials; donated.
      trials: what they are trained with.
      epoch: counts from 1.
      data: replicated on every device.

    Returns:
      The new states, the sums over the training examples, and the norms of the last step.
    """

    def one(own: tuple[State, Trials], shared: tuple[Array, Data]) -> tuple:
        (state, trial), (epoch, data), recipe = own, shared, plan.recipe
        order = trial.root if data.order is None else data.order
        batches = train.draw_batches(order, epoch - 1, data.num_train, recipe.batch_size)
        weights = None
        if data.folds is not None and data.order is not None:
            weights = jnp.where(data.folds.of == trial.fold, 0.0, 1.0)
        elif data.folds is not None:
            batches = data.folds.train[trial.fold][batches]
        examples = Examples(data.images, data.labels, weights)
        return train.train_batches(recipe, state, examples, batches, trial.hparams, trial.root)

    return _over_trials(plan, one, (state, trials), (epoch, data))


@partial(jax.jit, static_argnames="plan", donate_argnames="states")
def end_epoch(
    plan: Plan,
    states: TrialState,
    trials: Trials,
    measured: tuple[train.Metrics, Norms],
    epoch: Int32[Array, ""],
    data: Data,
) -> tuple[TrialState, EpochMetrics]:
    """Validate some trials, keep their best variables, and stop those that diverge or stagnate.

    Args:
      plan: static; its width is the number of trials.
      states: of these trials, with the state that `train_epoch` returned; donated.
      trials: what they are trained with.
      measured: the metrics and norms that `train_epoch` returned.
      epoch: counts from 1.
      data: replicated on every device.
    """
    own = states, trials, measured
    return _over_trials(plan, partial(_end_epoch, plan), own, (epoch, data))


def _end_epoch(
    plan: Plan,
    own: tuple[TrialState, Trials, tuple[train.Metrics, Norms]],
    shared: tuple[Array, Data],
) -> tuple[TrialState, EpochMetrics]:
    (before, trial, (sums, norms)), (epoch, data), recipe = own, shared, plan.recipe
    state, variables = before.state, train.variables(before.state)
    count = sums.examples.astype(jnp.float32)
    train_loss = sums.loss / count
    val_loss, val_accuracy, val_score = _validate(recipe, trial, variables, data)
    finite = jnp.isfinite(train_loss)
    for leaf in [val_loss] if data.validates else jax.tree.leaves(variables):
        finite &= jnp.isfinite(leaf).all()
    moves = before.active & finite
    better = moves & is_better(val_score, val_loss, before.best_score, before.best_loss)
    # Held-out folds evaluate the setting: choosing an epoch by them would be optimistic.
    keeps = better if data.validates and data.folds is None else moves
    waited = jnp.where(better, 0, before.waited + moves.astype(jnp.int32))
    waits = waited < plan.patience if plan.patience and data.validates else True
    last_step = state._replace(step=state.step - 1)
    after = TrialState(
        state=train.end_epoch(recipe, state, val_loss),
        best=jax.tree.map(lambda new, old: jnp.where(keeps, new, old), variables, before.best),
        best_epoch=jnp.where(keeps, epoch, before.best_epoch),
        best_score=jnp.where(better, val_score, before.best_score),
        best_loss=jnp.where(better, val_loss, before.best_loss),
        waited=waited,
        active=moves & waits,
        diverged=before.diverged | (before.active & ~finite),
    )
    return after, EpochMetrics(
        step=state.step,
        examples=sums.examples,
        train_loss=train_loss,
        train_accuracy=sums.correct.astype(jnp.float32) / count
        if recipe.task.correct
        else jnp.float32(jnp.nan),
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        val_score=val_score,
        learning_rate=train.learning_rate(recipe, last_step, trial.hparams),
        norms=norms,
        active=after.active,
        diverged=after.diverged,
    )


def is_better(
    score: Float32[Array, ""],
    loss: Float32[Array, ""],
    best_score: Float32[Array, ""],
    best_loss: Float32[Array, ""],
) -> Bool[Array, ""]:
    """Return whether a validation beats the best one: by its score, then by a lower loss."""
    return (score > best_score) | ((score == best_score) & (loss < best_loss))


def _validate(
    recipe: Recipe, trial: Trials, variables: PyTree, data: Data
) -> tuple[Array, Array, Array]:
    """Return loss, accuracy and score on the validation or held-out examples; else NaN."""
    images, labels, weights = data.val_images, data.val_labels, None
    if data.folds is not None:
        held_out = data.folds.held_out[trial.fold]
        images, labels = data.images[held_out], data.labels[held_out]
        weights = (held_out >= 0).astype(jnp.float32)
    if not len(labels):
        return (jnp.float32(jnp.nan),) * 3
    task = recipe.task
    outputs = evaluate.predict(
        recipe.model, variables, images, mesh=recipe.mesh, corrupt=task.corrupt
    )
    targets = task.targets(augment.normalize(images), labels)
    losses = task.loss(outputs, targets, 0.0)
    loss = losses.mean() if weights is None else (losses * weights).sum() / weights.sum()
    sums = train.measure(task, outputs, targets, weights)
    accuracy = jnp.float32(jnp.nan)
    if task.correct:
        accuracy = metrics.ratio(sums.correct, sums.examples)
    return loss, accuracy, task.score(outputs, targets, weights)


def _over_trials(plan: Plan, function: Callable, own: PyTree, shared: PyTree) -> Any:
    """Return `function(own, shared)` of each trial; for a single one it is not vmapped.

    The axis of trials is sharded over the mesh and replicated again afterwards.
    """
    if plan.width == 1:
        out = function(jax.tree.map(lambda x: x[0], own), shared)
        return jax.tree.map(lambda x: x[None], out)
    lifted = jax.vmap(function, in_axes=(0, None), spmd_axis_name=sharding.TRIAL)
    own = sharding.shard(plan.recipe.mesh, own, sharding.TRIAL)
    return sharding.replicate(plan.recipe.mesh, lifted(own, shared))
