"""Optimizers and learning-rate schedules, from Optax; rates are traced, never compiled in.

Adding one takes a builder and an entry of `OPTIMIZERS` or `SCHEDULES`, with the config keys that it
reads. A builder takes the module `optax`, because reading flags must not import it.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxtyping import Float, Int

from mnist_jax.train.state import Hparams
from mnist_jax.types import Array, Fields, Option, PyTree, resolve, unread

if TYPE_CHECKING:
    import optax

Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]


class Entry(NamedTuple):
    """An optimizer or a schedule: how to build it, and the keys of `config.optim` that it reads."""

    build: Callable
    options: dict[str, Option] = {}  # noqa: RUF012 (never changed)


_BETAS = {
    "b1": Option(0.9, "decay of the gradient's average", "[0, 1)"),
    "b2": Option(0.999, "decay of the squared gradient's average", "[0, 1)"),
}
_WARMUP = {"warmup": Option(0.3, "share of the steps in which the rate rises", "[0, 1)")}
_DECAY = {
    "decay": Option(0.1, "factor on the rate, every decay_epochs", "(0, 1)"),
    "decay_epochs": Option(
        10,
        "epochs a factor; of plateau those in a row without a validation loss 0.01% below the best",
        "[1, inf)",
    ),
    "min_learning_rate": Option(0.0, "the rate falls no further", "[0, inf)"),
}


def _adam(optax: Any, config: Fields) -> Any:
    # b1 and b2 are compiled in: 1 - b2 would lose digits as a traced float32.
    return optax.scale_by_adam(config["b1"], config["b2"])


# Builders return Optax transformations in order, without the learning rate.
OPTIMIZERS = {
    "sgd": Entry(lambda optax, config, hparams, decay: [decay]),
    "momentum": Entry(
        lambda optax, config, hparams, decay: [decay, optax.trace(hparams.momentum)],
        {"momentum": Option(0.9, "share of the last update in the next", "[0, 1)")},
    ),
    "adam": Entry(lambda optax, config, hparams, decay: [decay, _adam(optax, config)], _BETAS),
    "adamw": Entry(lambda optax, config, hparams, decay: [_adam(optax, config), decay], _BETAS),
}


def _cosine(optax: Any, config: Fields, total: int, every: int) -> Callable:
    warmup = min(round(config["warmup"] * total), total - 1)
    return optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, total)


def _one_cycle(optax: Any, config: Fields, total: int, every: int) -> Callable:
    return optax.cosine_onecycle_schedule(total, 1.0, config["warmup"])


def _step(optax: Any, config: Fields, total: int, every: int) -> Callable:
    return optax.exponential_decay(1.0, every, config["decay"], staircase=True)


def _exponential(optax: Any, config: Fields, total: int, every: int) -> Callable:
    return optax.exponential_decay(1.0, every, config["decay"])


def _constant(optax: Any, config: Fields, total: int, every: int) -> Callable:
    return optax.constant_schedule(1.0)


# Builders return the learning rate at a step, as a fraction of its peak, from the total number of
# steps and the number in `decay_epochs`. "plateau" is constant: the function `plateau` reduces it.
SCHEDULES = {
    "constant": Entry(_constant),
    "cosine": Entry(_cosine, _WARMUP),
    "one_cycle": Entry(_one_cycle, _WARMUP),
    "step": Entry(_step, _DECAY),
    "exponential": Entry(_exponential, _DECAY),
    "plateau": Entry(_constant, _DECAY),
}


def _optional(entries: Mapping[str, Entry]) -> dict[str, Option]:
    return {
        key: option._replace(optional=True)
        for entry in entries.values()
        for key, option in entry.options.items()
    }


OPTIONS = {
    "name": Option("adam", "the optimizer", OPTIMIZERS),
    "learning_rate": Option(1e-3, "the schedule's peak", "(0, inf)"),
    "schedule": Option("constant", "of the learning rate", SCHEDULES),
    **_optional(SCHEDULES),
    "weight_decay": Option(0.0, "decoupled for adamw, an L2 term for the others", "[0, inf)"),
    "decay_biases": Option(False, "decay biases and scales, not only weights", optional=True),
    "label_smoothing": Option(0.0, "share of a target that all classes get", "[0, 1)"),
    "clip": Option(0.0, "largest norm of the whole gradient; 0: any", "[0, inf)"),
    "ema": Option(0.0, "decay of the averaged parameters that are evaluated; 0: off", "[0, 1)"),
    **_optional(OPTIMIZERS),
}


def fields(config: Fields) -> dict[str, Any]:
    """Return every key of `config.optim`; None is replaced by the default of what reads the key."""
    entries = SCHEDULES[config["schedule"]], OPTIMIZERS[config["name"]]
    return resolve(config, {**OPTIONS, **entries[0].options, **entries[1].options})


def unused(config: Fields) -> dict[str, str]:
    """Return the keys that are set without effect, and why; see `types.unread`."""
    found: dict[str, str] = {}
    for registry, name in ((SCHEDULES, config["schedule"]), (OPTIMIZERS, config["name"])):
        found |= unread(config, name, {name: entry.options for name, entry in registry.items()})
    if config["decay_biases"] and not config["weight_decay"]:
        found["decay_biases"] = "config.optim.weight_decay is 0"
    return found


def schedule(config: Fields, num_epochs: int, steps_per_epoch: int) -> Schedule:
    """Return the learning rate at a step, as a fraction of its peak.

    `config.optim.warmup` is the rising part of "cosine" (linear, from 0) and of "one_cycle"
    (cosine, from 1/25; Smith and Topin 2018), as a fraction of all steps. "step" and "exponential"
    multiply by `decay` every `decay_epochs` epochs, at once and gradually. "plateau" is constant
    here: see `plateau`.
    """
    import jax.numpy as jnp
    import optax

    config = fields(config)
    build, every = SCHEDULES[config["schedule"]].build, config["decay_epochs"] * steps_per_epoch
    fraction = build(optax, config, num_epochs * steps_per_epoch, every)
    return loosely(lambda step: jnp.asarray(fraction(step), jnp.float32))


def loosely(optax_function: Callable) -> Callable:
    """Let Optax, which mixes dtypes freely, be called where promotion is strict."""
    import jax

    def call(*args: Any, **kwargs: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return optax_function(*args, **kwargs)

    return call


def global_norm(tree: PyTree) -> Float[Array, ""]:
    """Return the Euclidean norm of all numbers of a tree."""
    import optax

    return loosely(optax.tree.norm)(tree)


def optimizer(
    config: Fields, hparams: Hparams, learning_rate: Float[Array, ""]
) -> "optax.GradientTransformation":
    """Return the chain that turns gradients into updates, at this step's learning rate.

    Weight decay is decoupled for "adamw" (Loshchilov and Hutter 2019) and an L2 term in the
    gradient for the others. Biases and scales, which have one axis, are decayed only with
    `config.optim.decay_biases`. The chain's state has the same structure whatever the
    numbers are.
    """
    import jax
    import optax

    from mnist_jax.runtime.xla import barrier

    config = fields(config)
    decay = optax.stateless(_decay(hparams.weight_decay, config["decay_biases"]))
    direction = OPTIMIZERS[config["name"]].build(optax, config, hparams, decay)
    clip = [optax.clip_by_global_norm(hparams.clip)] if config["clip"] else []
    chain = optax.chain(*clip, *direction, optax.scale(-learning_rate))

    def update(gradients: PyTree, *state: PyTree) -> tuple:
        # XLA on CPU would otherwise recompute the gradients for each use. With dense layers alone,
        # no weights change before all gradients are there, or they are copied.
        has_kernels = any(gradient.ndim > 2 for gradient in jax.tree.leaves(gradients))
        once = jax.tree.map(barrier, gradients) if has_kernels else barrier(gradients)
        return chain.update(once, *state)

    return optax.GradientTransformation(chain.init, loosely(update))


def _decay(rate: Float[Array, ""], biases: bool) -> Callable:
    """Return the function that adds weight decay to updates, as `optax.add_decayed_weights` does.

    A bias or scale, which has one axis, is decayed by 0: leaving its term out would change how XLA
    rounds all others.
    """
    import jax

    def decay(update: Array, parameter: Array) -> Array:
        share = 1.0 if biases or parameter.ndim > 1 else 0.0
        return update + rate * share * parameter

    return lambda updates, params: jax.tree.map(decay, updates, params)


def plateau(config: Fields) -> "optax.GradientTransformationExtraArgs | None":
    """Multiply the rate by `decay` after `decay_epochs` epochs without a better validation loss.

    A loss is better if it is more than 0.01% below the best one, as in PyTorch's
    `ReduceLROnPlateau`. To be updated once an epoch; its state's `scale` is the factor reached.
    None under other schedules.
    """
    if config["schedule"] != "plateau":
        return None
    import optax

    config = fields(config)
    reduce = optax.contrib.reduce_on_plateau(
        config["decay"], patience=config["decay_epochs"], rtol=1e-4
    )
    return optax.GradientTransformationExtraArgs(reduce.init, loosely(reduce.update))
