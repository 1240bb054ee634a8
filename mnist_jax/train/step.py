"""Training as pure functions: a state, a step, and an epoch that is one program.

Everything fixed at compile time is in a `Recipe`; every number that may vary is an argument. There
is no I/O, and all randomness comes from the root key.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Shaped, UInt8
from ml_collections import ConfigDict, FrozenConfigDict

from mnist_jax import tasks
from mnist_jax.analysis import metrics
from mnist_jax.analysis.metrics import Metrics
from mnist_jax.data import augment
from mnist_jax.models import networks
from mnist_jax.models.networks import Model
from mnist_jax.runtime import sharding, xla
from mnist_jax.runtime.prng import Key, stream
from mnist_jax.tasks import Task
from mnist_jax.train import optim, weights
from mnist_jax.train.optim import Schedule
from mnist_jax.train.state import Hparams, State
from mnist_jax.types import PyTree


class Examples(NamedTuple):
    """Training examples, or a batch of them."""

    images: UInt8[Array, "n 28 28 1"]
    labels: Shaped[Array, "n ..."]
    weights: Float32[Array, "n"] | None = None  # in the loss; 0: does not count; None: all alike


class Norms(NamedTuple):
    """Euclidean norms over all parameters, in one step."""

    gradients: Float32[Array, ""]
    params: Float32[Array, ""]  # before the step
    updates: Float32[Array, ""]


class Recipe(NamedTuple):
    """The static parts of training: hashable, a static argument of `jit`."""

    model: Model
    task: Task
    optimizer: Callable[[Hparams, Float[Array, ""]], optax.GradientTransformation]
    schedule: Schedule
    plateau: optax.GradientTransformationExtraArgs | None
    augment: augment.Transform | None
    batch_size: int
    ema: bool  # whether parameters are averaged
    mesh: Mesh | None  # the devices that share each batch; None: one device
    min_learning_rate: float  # of schedules that decay
    class_weights: Callable[[Array, Array | None], Array] | None  # see `train_batches`


def make_recipe(
    config: ConfigDict, num_classes: int, num_train: int, mesh: Mesh | None = None
) -> Recipe:
    """Return the recipe of a config, given the numbers of classes (or labels) and examples.

    Equal configs share a recipe, so that `jit` traces and compiles their programs once.
    """
    parts = {name: config[name] for name in ("task", "model", "optim", "train")}
    return _make_recipe(FrozenConfigDict(parts), num_classes, num_train, mesh)


@functools.lru_cache(maxsize=32)
def _make_recipe(
    config: FrozenConfigDict, num_classes: int, num_train: int, mesh: Mesh | None
) -> Recipe:
    steps_per_epoch = num_train // config.train.batch_size
    task = tasks.build(config.task, num_classes)
    return Recipe(
        model=networks.build(config.model, task.num_outputs),
        task=task,
        optimizer=partial(optim.optimizer, config.optim),
        schedule=optim.schedule(config.optim, config.train.epochs, steps_per_epoch),
        plateau=optim.plateau(config.optim),
        augment=augment.make_transform(
            augment.read_strength(config.train.augment), augment.read_fill(config.train.augment)
        ),
        batch_size=config.train.batch_size,
        ema=config.optim.ema > 0,
        mesh=mesh,
        min_learning_rate=optim.fields(config.optim)["min_learning_rate"],
        class_weights=weights.make(config.train.class_weights, num_classes),
    )


def make_hparams(config: ConfigDict) -> Hparams:
    """Return the numbers of a config that are traced."""
    numbers = optim.fields(config.optim)
    own = [key for key in Hparams._fields if key in numbers]
    return Hparams(
        **{key: jnp.float32(numbers[key]) for key in own},
        init_scale=jnp.float32(config.model.init_scale),
        dropout=networks.read_rates(config.model),
        augment=augment.read_strength(config.train.augment),
    )


def init_state(recipe: Recipe, hparams: Hparams, root: Key) -> State:
    """Return the state before the first step."""
    variables = recipe.model.init(stream(root, "init", 0))
    params = jax.tree.map(  # weights; biases and scales have one axis
        lambda x: x * hparams.init_scale if x.ndim > 1 else x, variables["params"]
    )
    return State(
        step=jnp.int32(0),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=recipe.optimizer(hparams, hparams.learning_rate).init(params),
        ema_params=jax.tree.map(jnp.copy, params) if recipe.ema else None,
        plateau=recipe.plateau.init(params) if recipe.plateau else None,
    )


def train_step(
    recipe: Recipe,
    state: State,
    batch: Examples,
    hparams: Hparams,
    root: Key,
    last: Bool[Array, ""] | bool = False,
) -> tuple[State, Metrics, Norms]:
    """Take one step of the optimizer on one batch.

    Args:
      recipe: static.
      state: before the step.
      batch: its examples.
      hparams: traced numbers.
      root: key of the trial.
      last: whether to compute the norms; they cost a pass over all parameters.

    Returns:
      The new state, the metrics of the parameters before the step, and the norms, 0 unless `last`.
    """
    images, labels = sharding.shard(recipe.mesh, (batch.images, batch.labels))
    pixels = augment.normalize(images)
    if recipe.augment:
        pixels = recipe.augment(stream(root, "augment", state.step), pixels, hparams.augment)
    targets = recipe.task.targets(pixels, labels)
    if recipe.task.corrupt:
        keys = jax.random.split(stream(root, "corrupt", state.step), len(pixels))
        pixels = jax.vmap(recipe.task.corrupt)(keys, pixels)

    def loss(params: PyTree) -> tuple[Array, tuple[Array, PyTree]]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        dropout_key = stream(root, "dropout", state.step)
        apply = sharding.shard_map(recipe.mesh, recipe.model.apply_train, (True, False))
        logits, batch_stats = apply(variables, pixels, dropout_key, hparams.dropout)
        losses = recipe.task.loss(logits, targets, hparams.label_smoothing)
        if batch.weights is None:
            return losses.mean(), (logits, batch_stats)
        counted = jnp.maximum(batch.weights.sum(), 1.0)  # a small batch may be held out entirely
        return (losses * batch.weights).sum() / counted, (logits, batch_stats)

    with networks.multiply_in(recipe.model.precision):
        gradients, (logits, batch_stats) = jax.grad(loss, has_aux=True)(state.params)
    optimizer = recipe.optimizer(hparams, learning_rate(recipe, state, hparams))
    norms = _norms(last, optimizer.update, gradients, state)
    # The norms come first: they read what the update then overwrites in place.
    gradients, norms = xla.barrier((gradients, norms))
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    state = state._replace(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        ema_params=_average(recipe, state, params, hparams),
    )
    return state, measure(recipe.task, logits, targets, batch.weights), norms


@partial(jax.jit, static_argnames="recipe", donate_argnames="state")
def train_epoch(
    recipe: Recipe,
    state: State,
    images: UInt8[Array, "train 28 28 1"],
    labels: Shaped[Array, "train ..."],
    hparams: Hparams,
    root: Key,
) -> tuple[State, Metrics, Norms]:
    """Train for one epoch, as one program.

    Each epoch visits the examples in a new order. The last ones, which do not fill a batch, are
    left out.
    """
    epoch = state.step // (len(labels) // recipe.batch_size)
    batches = draw_batches(root, epoch, len(labels), recipe.batch_size)
    return train_batches(recipe, state, Examples(images, labels), batches, hparams, root)


def draw_batches(
    root: Key, epoch: Int[Array, ""], num_train: int, batch_size: int
) -> Int32[Array, "steps batch"]:
    """Draw the indices of the examples of each batch of an epoch."""
    steps = num_train // batch_size
    order = jax.random.permutation(stream(root, "shuffle", epoch), num_train)
    return order[: steps * batch_size].reshape(steps, batch_size).astype(jnp.int32)


def train_batches(
    recipe: Recipe,
    state: State,
    examples: Examples,
    batches: Int32[Array, "steps batch"],
    hparams: Hparams,
    root: Key,
) -> tuple[State, Metrics, Norms]:
    """Take one step on each of the batches, which are indices of the examples.

    Returns:
      The new state, the summed metrics, and the norms of the last step.
    """
    in_loss = examples.weights
    if recipe.class_weights:
        in_loss = recipe.class_weights(examples.labels, examples.weights)

    def step(carry: tuple[State, Metrics, Norms], inputs: tuple[Array, Array | bool]) -> tuple:
        (state, total, _), (index, last) = carry, inputs
        own = None if in_loss is None else in_loss[index]
        batch = Examples(examples.images[index], examples.labels[index], own)
        state, new, norms = train_step(recipe, state, batch, hparams, root, last)
        return (state, metrics.merge(total, new), norms), None

    start = state, metrics.zeros(), Norms(*[jnp.float32(0)] * 3)
    if sharding.platform(recipe.mesh) == "cpu":
        last = jnp.arange(len(batches)) == len(batches) - 1
        return lax.scan(step, start, (batches, last))[0]
    # In a loop on a GPU, each condition would wait for the host: unroll the last step.
    before, _ = lax.scan(lambda carry, index: step(carry, (index, False)), start, batches[:-1])
    return step(before, (batches[-1], True))[0]


def _norms(
    last: Bool[Array, ""] | bool, update: Callable, gradients: PyTree, state: State
) -> Norms:
    def compute() -> Norms:
        updates, _ = update(gradients, state.opt_state, state.params)
        return Norms(*map(optim.global_norm, (gradients, state.params, updates)))

    zero = Norms(*[jnp.float32(0)] * 3)
    if isinstance(last, bool):
        return compute() if last else zero
    return lax.cond(last, compute, lambda: zero)


def measure(
    task: Task,
    outputs: Float[Array, "batch outputs"],
    targets: Shaped[Array, "batch ..."],
    weights: Float32[Array, "batch"] | None = None,
) -> Metrics:
    """Sum the metrics of a batch; the loss is without smoothing and weights, as in validation."""
    counted = (
        jnp.ones(len(targets), jnp.float32)
        if weights is None
        else (weights > 0).astype(jnp.float32)
    )
    correct = task.correct(outputs, targets) if task.correct else jnp.zeros_like(counted, bool)
    return Metrics(
        loss=(task.loss(outputs, targets, 0.0) * counted).sum(),
        correct=(correct & (counted > 0)).sum(dtype=jnp.int32),
        examples=(counted > 0).sum(dtype=jnp.int32),
    )


def learning_rate(recipe: Recipe, state: State, hparams: Hparams) -> Float[Array, ""]:
    """Return the learning rate of the next step."""
    rate = hparams.learning_rate * recipe.schedule(state.step)
    if recipe.plateau:
        rate = rate * state.plateau.scale
    return jnp.maximum(rate, recipe.min_learning_rate) if recipe.min_learning_rate else rate


def end_epoch(recipe: Recipe, state: State, val_loss: Float[Array, ""]) -> State:
    """Update the state after validation: reduce the learning rate on a plateau."""
    if recipe.plateau is None:
        return state
    _, plateau = recipe.plateau.update({}, state.plateau, value=val_loss)
    return state._replace(plateau=plateau)


def variables(state: State) -> PyTree:
    """Return the variables for evaluation: the averaged parameters, if any."""
    params = state.params if state.ema_params is None else state.ema_params
    return {"params": params, "batch_stats": state.batch_stats}


def _average(recipe: Recipe, state: State, params: PyTree, hparams: Hparams) -> PyTree:
    if not recipe.ema:
        return None
    # The first steps' parameters would linger: the average starts short and grows.
    step = state.step.astype(jnp.float32)
    decay = jnp.minimum(hparams.ema, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(params, state.ema_params, 1.0 - decay)
