"""Optimizers and learning-rate schedules, from Optax; rates are traced, never compiled in."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from mnist_jax.runtime.xla import barrier
from mnist_jax.train.state import Hparams
from mnist_jax.types import Fields, PyTree

Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]


def schedule(config: Fields, num_epochs: int, steps_per_epoch: int) -> Schedule:
    """The learning rate at a step, as a fraction of its peak.

    `config.optim.warmup` is the rising part of "cosine" (linear, from 0) and of "one_cycle"
    (cosine, from 1/25; Smith and Topin 2018), as a fraction of all steps. "step" and "exponential"
    multiply by `decay` every `decay_epochs` epochs, at once and gradually. "plateau" is constant
    here: its reductions are `plateau`'s.
    """
    total = num_epochs * steps_per_epoch
    every = config["decay_epochs"] * steps_per_epoch
    match config["schedule"]:
        case "constant" | "plateau":
            fraction = optax.constant_schedule(1.0)
        case "cosine":
            warmup = min(round(config["warmup"] * total), total - 1)
            fraction = optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, total)
        case "one_cycle":
            fraction = optax.cosine_onecycle_schedule(total, 1.0, config["warmup"])
        case "step":
            fraction = optax.exponential_decay(1.0, every, config["decay"], staircase=True)
        case "exponential":
            fraction = optax.exponential_decay(1.0, every, config["decay"])
        case unknown:
            raise ValueError(unknown)
    return loosely(lambda step: jnp.asarray(fraction(step), jnp.float32))


def loosely(optax_function: Callable) -> Callable:
    """Lets Optax, which mixes dtypes freely, be called where promotion is strict."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return optax_function(*args, **kwargs)

    return call


def optimizer(
    config: Fields, hparams: Hparams, learning_rate: Float[Array, ""]
) -> optax.GradientTransformation:
    """The chain that turns gradients into updates, at this step's learning rate.

    Weight decay is decoupled for "adamw" (Loshchilov and Hutter 2019) and an L2 term in the
    gradient for the others. The chain's state has the same structure whatever the numbers are.
    """
    # Adam's b1 and b2 are compiled in: 1 - b2 would lose digits as a traced float32.
    decay = optax.add_decayed_weights(hparams.weight_decay)
    direction = {
        "sgd": [decay],
        "momentum": [decay, optax.trace(hparams.momentum)],
        "adam": [decay, optax.scale_by_adam(config["b1"], config["b2"])],
        "adamw": [optax.scale_by_adam(config["b1"], config["b2"]), decay],
    }[config["name"]]
    clip = [optax.clip_by_global_norm(hparams.clip)] if config["clip"] else []
    chain = optax.chain(*clip, *direction, optax.scale(-learning_rate))

    def update(gradients: PyTree, *state: PyTree) -> tuple:
        return chain.update(_computed_once(gradients), *state)

    return optax.GradientTransformation(chain.init, loosely(update))


def _computed_once(gradients: PyTree) -> PyTree:
    """The same; on a CPU XLA would make each part of all passes of the optimizer that read it."""
    if any(gradient.ndim > 2 for gradient in jax.tree.leaves(gradients)):
        return jax.tree.map(barrier, gradients)
    # Dense layers alone: no weights change before all gradients are there, or they are copied.
    return barrier(gradients)


def plateau(config: Fields) -> optax.GradientTransformationExtraArgs | None:
    """Multiplies the rate by `decay` after `decay_epochs` epochs without a better validation loss.

    To be updated once an epoch; its state's `scale` is the factor reached. None under other
    schedules.
    """
    if config["schedule"] != "plateau":
        return None
    reduce = optax.contrib.reduce_on_plateau(config["decay"], patience=config["decay_epochs"])
    return optax.GradientTransformationExtraArgs(reduce.init, loosely(reduce.update))
