"""Members: many trainings as one more axis, vmapped.

A member is a seed, numbers of its own (`types.Hparams`) and, in cross-validation, a fold. What
trains one member is what trains a run; this module lifts it over an axis of members, and freezes
those that are done or have diverged, so that they harm nobody. The courses of all members stay on
the devices; an epoch is called for as many of them at a time as a `Plan` says.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float32, Int, Int32, Shaped, UInt8

from mnist_jax import tasks, train
from mnist_jax.analysis import metrics
from mnist_jax.analysis.metrics import Metrics
from mnist_jax.data import augment
from mnist_jax.runtime import sharding
from mnist_jax.runtime.prng import Key
from mnist_jax.train import evaluate
from mnist_jax.train.state import Hparams, State
from mnist_jax.train.step import Recipe
from mnist_jax.types import PyTree


class Folds(NamedTuple):
    """Who is held out when: indices of examples."""

    of: Int32[Array, "n"]  # the fold that holds an example out
    kept: Int32[Array, "folds train"]  # as many in each fold: one too many is left out
    held_out: Int32[Array, "folds val"]  # -1 where a fold has one less than others


class Data(NamedTuple):
    """The examples of all members, and the order in which they see them."""

    images: UInt8[Array, "train 28 28 1"]
    labels: Shaped[Array, "train ..."]
    val_images: UInt8[Array, "val 28 28 1"]  # none in cross-validation
    val_labels: Shaped[Array, "val ..."]
    folds: Folds | None
    order: Key | None  # root of the one order that all share; None: to each its own


class Members(NamedTuple):
    """What each is trained with; every array has a leading axis of members."""

    root: Key
    hparams: Hparams
    fold: Int32[Array, "*members"] | None


class Course(NamedTuple):
    """How far each has come; every array has a leading axis of members."""

    state: State
    best: PyTree  # variables of the best epoch; without validation or with folds the last one's
    best_epoch: Int32[Array, "*members"]
    best_errors: Int32[Array, "*members"]
    best_loss: Float32[Array, "*members"]
    waited: Int32[Array, "*members"]  # epochs since the best validation
    active: Bool[Array, "*members"]  # still training
    diverged: Bool[Array, "*members"]


class Plan(NamedTuple):
    """How members are trained: static, as a `Recipe` is."""

    recipe: Recipe
    width: int  # members of a program
    threads: int  # programs at a time
    mesh: Mesh
    patience: int  # epochs without a better validation until a member stops; 0: it never does


def make_folds(held_out: tuple[Int[np.ndarray, " _"], ...], num_examples: int) -> Folds:
    """From the held-out indices of each fold, as `data.folds` gives them."""
    of = np.empty(num_examples, np.int32)
    for fold, index in enumerate(held_out):
        of[index] = fold
    kept = [np.flatnonzero(of != fold) for fold in range(len(held_out))]
    fewest, most = min(map(len, kept)), max(map(len, held_out))
    padded = [np.pad(x, (0, most - len(x)), constant_values=-1) for x in held_out]
    return Folds(
        of=jnp.asarray(of),
        kept=jnp.asarray(np.stack([index[:fewest] for index in kept]), jnp.int32),
        held_out=jnp.asarray(np.stack(padded), jnp.int32),
    )


def num_train(data: Data) -> int:
    """How many examples an epoch has: where members share batches, held-out ones as well."""
    if data.folds is None or data.order is not None:
        return len(data.labels)
    return data.folds.kept.shape[1]


@partial(jax.jit, static_argnames="plan")
def start(plan: Plan, members: Members) -> Course:
    """All members before their first epoch."""

    def one(member: Members) -> Course:
        state = train.init_state(plan.recipe, member.hparams, member.root)
        return Course(
            state=state,
            best=jax.tree.map(jnp.copy, train.variables(state)),
            best_epoch=jnp.int32(0),
            best_errors=jnp.int32(jnp.iinfo(jnp.int32).max),
            best_loss=jnp.float32(jnp.inf),
            waited=jnp.int32(0),
            active=jnp.bool_(True),
            diverged=jnp.bool_(False),
        )

    return sharding.replicate(plan.mesh, jax.vmap(one)(members))


@partial(jax.jit, static_argnames="plan")
def train_epoch(
    plan: Plan,
    courses: Course,
    members: Members,
    index: Int32[Array, "width"],
    epoch: Int32[Array, ""],
    data: Data,
) -> tuple[Course, Metrics, Metrics]:
    """An epoch of training and validation of some members.

    Args:
      plan: static.
      courses: of all members.
      members: all.
      index: which of them; beyond the last one: nobody, to fill the width up.
      epoch: counts from 1.
      data: whole on every device.

    Returns:
      Of those of the index, with a leading axis: their courses, and the sums over the training and
      over the validation examples. What a member that is no longer active would have become is
      computed and forgotten.
    """
    there = jnp.minimum(index, len(courses.active) - 1)
    chosen = jax.tree.map(lambda x: x[there], (members, courses))
    return _over_members(plan, partial(_epoch, plan), chosen, (epoch, data))


@partial(jax.jit, donate_argnames="courses")
def put(courses: Course, index: Int32[Array, "width"], new: Course) -> Course:
    """The courses of all, where those of an index are new ones; nobody's are forgotten."""
    return jax.tree.map(lambda x, y: x.at[index].set(y, mode="drop"), courses, new)


def _epoch(
    plan: Plan, chosen: tuple[Members, Course], shared: tuple[Array, Data]
) -> tuple[Course, Metrics, Metrics]:
    """Of one member."""
    (member, before), (epoch, data), recipe = chosen, shared, plan.recipe
    order = member.root if data.order is None else data.order
    batches = train.draw_batches(order, epoch - 1, num_train(data), recipe.batch_size)
    weights = None
    if data.folds is not None and data.order is not None:
        weights = jnp.where(data.folds.of == member.fold, 0.0, 1.0)
    elif data.folds is not None:
        batches = data.folds.kept[member.fold][batches]
    state, sums = train.train_batches(
        recipe,
        before.state,
        data.images,
        data.labels,
        batches,
        member.hparams,
        member.root,
        weights,
    )
    variables = train.variables(state)
    judged = _validate(recipe, member, variables, data)
    return _end_epoch(plan, before, state, variables, sums, judged, epoch, data), sums, judged


def _validate(recipe: Recipe, member: Members, variables: PyTree, data: Data) -> Metrics:
    images, labels, counted = data.val_images, data.val_labels, None
    if data.folds is not None:
        held_out = data.folds.held_out[member.fold]
        images, labels = data.images[held_out], data.labels[held_out]
        counted = (held_out >= 0).astype(jnp.float32)
    if not len(labels):
        return metrics.zeros()
    task = recipe.task
    outputs = evaluate.predict(
        recipe.model, variables, images, mesh=recipe.mesh, corrupt=task.corrupt
    )
    targets = task.targets(augment.normalize(images), labels)
    return train.measure(task, outputs, targets, counted)


def _end_epoch(
    plan: Plan,
    before: Course,
    state: State,
    variables: PyTree,
    sums: Metrics,
    judged: Metrics,
    epoch: Array,
    data: Data,
) -> Course:
    """Keeps what is better, and stops who has diverged or does not get better any more."""
    validated = data.folds is not None or len(data.val_labels) > 0
    errors = judged.examples - judged.correct
    loss = judged.loss / jnp.maximum(judged.examples, 1).astype(jnp.float32)
    finite = jnp.isfinite(sums.loss) & jnp.isfinite(loss)
    for leaf in [] if validated else jax.tree.leaves(variables):
        finite &= jnp.isfinite(leaf).all()
    better = (errors < before.best_errors) | (
        (errors == before.best_errors) & (loss < before.best_loss)
    )
    moves = before.active & finite
    # Held-out folds judge the setting: an epoch that was chosen by them would flatter it.
    kept = moves & better if validated and data.folds is None else moves
    waited = jnp.where(better, 0, before.waited + 1)
    patient = waited < plan.patience if plan.patience and validated else True
    state = train.end_epoch(plan.recipe, state, loss)
    return Course(
        state=_choose(moves, state, before.state),
        best=_choose(kept, variables, before.best),
        best_epoch=jnp.where(kept, epoch, before.best_epoch),
        best_errors=jnp.where(moves & better, errors, before.best_errors),
        best_loss=jnp.where(moves & better, loss, before.best_loss),
        waited=jnp.where(moves, waited, before.waited),
        active=moves & patient,
        diverged=before.diverged | (before.active & ~finite),
    )


def _choose(condition: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


@partial(jax.jit, static_argnames="plan")
def judge(
    plan: Plan,
    variables: PyTree,
    index: Int32[Array, "width"],
    images: UInt8[Array, "n 28 28 1"],
    labels: Shaped[Array, "n ..."],
) -> tuple[Float32[Array, "width n scores"], tasks.AnyReport]:
    """Scores and reports of some members on the same examples.

    Args:
      plan: static.
      variables: of all members.
      index: which of them, as in `train_epoch`.
      images: of a whole split.
      labels: theirs.
    """

    def one(variables: PyTree, examples: tuple[Array, Array]) -> tuple[Array, tasks.AnyReport]:
        recipe = plan.recipe
        return evaluate.judge(recipe.task, recipe.model, variables, *examples, mesh=recipe.mesh)

    there = jnp.minimum(index, jax.tree.leaves(variables)[0].shape[0] - 1)
    chosen = jax.tree.map(lambda x: x[there], variables)
    return _over_members(plan, one, chosen, (images, labels))


@partial(jax.jit, static_argnames="plan")
def score_held_out(
    plan: Plan,
    variables: PyTree,
    members: Members,
    index: Int32[Array, "width"],
    data: Data,
) -> Float32[Array, "width val scores"]:
    """Scores of some members for what is held out in their folds, in the order of `Folds.held_out`.

    Args:
      plan: static.
      variables: of all members.
      members: all.
      index: which of them, as in `train_epoch`.
      data: with folds.
    """

    def one(own: tuple[PyTree, Array], data: Data) -> Array:
        (variables, fold), task = own, plan.recipe.task
        assert data.folds is not None, "nothing is held out"
        images = data.images[data.folds.held_out[fold]]
        options = {"mesh": plan.recipe.mesh, "corrupt": task.corrupt}
        return task.scores(evaluate.predict(plan.recipe.model, variables, images, **options))

    there = jnp.minimum(index, jax.tree.leaves(variables)[0].shape[0] - 1)
    chosen = jax.tree.map(lambda x: x[there], (variables, members.fold))
    return _over_members(plan, one, chosen, data)


def _over_members(plan: Plan, function: Callable, own: PyTree, shared: PyTree) -> Any:
    """`function(own, shared)` of each member; of one alone it is the function itself, not vmapped.

    The members' axis is split over that of the mesh, and whole again after it.
    """
    if plan.width == 1:
        out = function(jax.tree.map(lambda x: x[0], own), shared)
        return jax.tree.map(lambda x: x[None], out)
    lifted = jax.vmap(function, in_axes=(0, None), spmd_axis_name=sharding.TRIAL)
    own = sharding.shard(plan.mesh, own, sharding.TRIAL)
    return sharding.replicate(plan.mesh, lifted(own, shared))
