"""What training changes, and the numbers that it reads."""

from typing import NamedTuple

import optax
from jaxtyping import Array, Float, Int

from mnist_jax.types import PyTree


class Hparams(NamedTuple):
    """Numbers that training reads as traced values: changing one never recompiles."""

    learning_rate: Float[Array, ""]  # the schedule's peak
    weight_decay: Float[Array, ""]
    label_smoothing: Float[Array, ""]
    momentum: Float[Array, ""]
    clip: Float[Array, ""]  # largest norm of the whole gradient; only where it is on at all
    ema: Float[Array, ""]  # decay of the averaged parameters; only where they are on at all
    init_scale: Float[Array, ""]  # factor on the initial weights
    dropout: PyTree  # models.Rates
    augment: PyTree  # augment.Strength


class State(NamedTuple):
    """Everything that training changes, and so all that a checkpoint has to hold."""

    step: Int[Array, ""]  # optimizer steps done
    params: PyTree
    batch_stats: PyTree  # what is not trained: running means and variances, random features; {}
    opt_state: optax.OptState
    ema_params: PyTree  # exponential moving average of params; None when it is off
    plateau: optax.OptState  # what reduction on a plateau remembers; None under other schedules
