"""Training as pure functions: a state, a step, and an epoch that is one program.

Everything fixed at compile time is in a `Recipe`; every number that may vary is an argument. There
is no I/O here, and no randomness but that of the root key.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int, Int32, Shaped, UInt8
from ml_collections import ConfigDict

from mnist_jax import tasks
from mnist_jax.analysis import metrics
from mnist_jax.analysis.metrics import Metrics
from mnist_jax.data import augment
from mnist_jax.models import networks
from mnist_jax.models.networks import Model
from mnist_jax.runtime import sharding
from mnist_jax.runtime.prng import Key, stream
from mnist_jax.tasks import Task
from mnist_jax.train import optim
from mnist_jax.train.optim import Schedule
from mnist_jax.train.state import Hparams, State
from mnist_jax.types import PyTree


class Recipe(NamedTuple):
    """What training is made of: static, hashable, an argument of `jit` that is never traced."""

    model: Model
    task: Task
    optimizer: Callable[[Hparams, Float[Array, ""]], optax.GradientTransformation]
    schedule: Schedule
    plateau: optax.GradientTransformationExtraArgs | None
    augment: augment.Transform | None
    batch_size: int
    ema: bool  # whether parameters are averaged
    mesh: Mesh | None  # the devices that share each batch; None: one device


def make_recipe(
    config: ConfigDict, num_classes: int, num_train: int, mesh: Mesh | None = None
) -> Recipe:
    """The recipe of a config, for data of so many classes (or labels) and training examples."""
    steps_per_epoch = num_train // config.train.batch_size
    task = tasks.build(config.task, num_classes)
    return Recipe(
        model=networks.build(config.model, task.num_outputs),
        task=task,
        optimizer=partial(optim.optimizer, config.optim),
        schedule=optim.schedule(config.optim, config.train.epochs, steps_per_epoch),
        plateau=optim.plateau(config.optim),
        augment=augment.make_transform(
            augment.read_strength(config.train.augment), config.train.augment.fill
        ),
        batch_size=config.train.batch_size,
        ema=config.optim.ema > 0,
        mesh=mesh,
    )


def make_hparams(config: ConfigDict) -> Hparams:
    """The numbers of a config that training reads as traced values."""
    c = config.optim
    return Hparams(
        learning_rate=jnp.float32(c.learning_rate),
        weight_decay=jnp.float32(c.weight_decay),
        label_smoothing=jnp.float32(c.label_smoothing),
        momentum=jnp.float32(c.momentum),
        clip=jnp.float32(c.clip),
        ema=jnp.float32(c.ema),
        init_scale=jnp.float32(config.model.init_scale),
        dropout=networks.read_rates(config.model),
        augment=augment.read_strength(config.train.augment),
    )


def init_state(recipe: Recipe, hparams: Hparams, root: Key) -> State:
    """The state before the first step."""
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
    images: UInt8[Array, "batch 28 28 1"],
    labels: Shaped[Array, "batch ..."],
    hparams: Hparams,
    root: Key,
    weights: Float32[Array, "batch"] | None = None,
) -> tuple[State, Metrics]:
    """One step of the optimizer on one batch; the metrics are of the parameters before it.

    `weights` are 1 and 0: what has 0 counts nowhere. None: everything counts.
    """
    images, labels = sharding.shard(recipe.mesh, (images, labels))
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
        if weights is None:
            return losses.mean(), (logits, batch_stats)
        counted = jnp.maximum(weights.sum(), 1.0)  # a small batch may be held out whole
        return (losses * weights).sum() / counted, (logits, batch_stats)

    gradients, (logits, batch_stats) = jax.grad(loss, has_aux=True)(state.params)
    optimizer = recipe.optimizer(hparams, learning_rate(recipe, state, hparams))
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    state = state._replace(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        ema_params=_average(recipe, state, params, hparams),
    )
    return state, measure(recipe.task, logits, targets, weights)


@partial(jax.jit, static_argnames="recipe", donate_argnames="state")
def train_epoch(
    recipe: Recipe,
    state: State,
    images: UInt8[Array, "train 28 28 1"],
    labels: Shaped[Array, "train ..."],
    hparams: Hparams,
    root: Key,
) -> tuple[State, Metrics]:
    """One pass over the examples in a new order, as one program.

    The examples that do not fill a last batch are left out, other ones each epoch.
    """
    epoch = state.step // (len(labels) // recipe.batch_size)
    batches = draw_batches(root, epoch, len(labels), recipe.batch_size)
    return train_batches(recipe, state, images, labels, batches, hparams, root)


def draw_batches(
    root: Key, epoch: Int[Array, ""], num_train: int, batch_size: int
) -> Int32[Array, "steps batch"]:
    """Which examples an epoch's batches consist of."""
    steps = num_train // batch_size
    order = jax.random.permutation(stream(root, "shuffle", epoch), num_train)
    return order[: steps * batch_size].reshape(steps, batch_size)


def train_batches(
    recipe: Recipe,
    state: State,
    images: UInt8[Array, "train 28 28 1"],
    labels: Shaped[Array, "train ..."],
    batches: Int32[Array, "steps batch"],
    hparams: Hparams,
    root: Key,
    weights: Float32[Array, "train"] | None = None,
) -> tuple[State, Metrics]:
    """Steps on the given batches, one after the other; `weights` as in `train_step`."""

    def step(carry: tuple[State, Metrics], batch: Int32[Array, "batch"]) -> tuple:
        state, total = carry
        chosen = None if weights is None else weights[batch]
        args = recipe, state, images[batch], labels[batch], hparams, root, chosen
        state, new = train_step(*args)
        return (state, metrics.merge(total, new)), None

    (state, total), _ = lax.scan(step, (state, metrics.zeros()), batches)
    return state, total


def measure(
    task: Task,
    outputs: Float[Array, "batch outputs"],
    targets: Shaped[Array, "batch ..."],
    weights: Float32[Array, "batch"] | None = None,
) -> Metrics:
    """The sums of a batch; the loss is the plain one, without smoothing, as in validation."""
    counted = jnp.ones(len(targets)) if weights is None else weights
    correct = task.correct(outputs, targets) if task.correct else jnp.zeros_like(counted, bool)
    return Metrics(
        loss=(task.loss(outputs, targets, 0.0) * counted).sum(),
        correct=(correct & (counted > 0)).sum(),
        examples=(counted > 0).sum(),
    )


def learning_rate(recipe: Recipe, state: State, hparams: Hparams) -> Float[Array, ""]:
    """The learning rate of the step that the state comes to next."""
    rate = hparams.learning_rate * recipe.schedule(state.step)
    return rate * state.plateau.scale if recipe.plateau else rate


def end_epoch(recipe: Recipe, state: State, val_loss: Float[Array, ""]) -> State:
    """What validation changes in the state: the learning rate, when it falls on a plateau."""
    if recipe.plateau is None:
        return state
    _, plateau = recipe.plateau.update({}, state.plateau, value=val_loss)
    return state._replace(plateau=plateau)


def variables(state: State) -> PyTree:
    """What the model is evaluated with: the averaged parameters where there are any."""
    params = state.params if state.ema_params is None else state.ema_params
    return {"params": params, "batch_stats": state.batch_stats}


def _average(recipe: Recipe, state: State, params: PyTree, hparams: Hparams) -> PyTree:
    if not recipe.ema:
        return None
    # The first steps' parameters would linger: the average starts short and grows.
    step = state.step.astype(jnp.float32)
    decay = jnp.minimum(hparams.ema, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(params, state.ema_params, 1.0 - decay)
