"""The state that training changes, and the numbers that it reads; does not import JAX."""

from typing import NamedTuple

from jaxtyping import Float, Int

from mnist_jax.data.augment import Strength
from mnist_jax.models.registry import Rates
from mnist_jax.types import Array, PyTree


class Hparams(NamedTuple):
    """Numbers that training reads as traced values: changing one never recompiles."""

    learning_rate: Float[Array, ""]  # the schedule's peak
    weight_decay: Float[Array, ""]
    label_smoothing: Float[Array, ""]
    momentum: Float[Array, ""]
    clip: Float[Array, ""]  # largest norm of the whole gradient; only where it is on at all
    ema: Float[Array, ""]  # decay of the averaged parameters; only where they are on at all
    init_scale: Float[Array, ""]  # factor on the initial weights
    dropout: Rates
    augment: Strength


# The config keys of `Hparams`: trials that differ in nothing else share a program.
TRACED = (
    *(f"model.{name}" for name in (*Rates._fields, "init_scale")),
    *(f"train.augment.{name}" for name in Strength._fields),
    *(f"optim.{x}" for x in Hparams._fields if x not in ("init_scale", "dropout", "augment")),
)


class State(NamedTuple):
    """Everything that training changes; a checkpoint saves all of it."""

    step: Int[Array, ""]  # optimizer steps done
    params: PyTree
    batch_stats: PyTree  # untrained: running means and variances, random features; {}
    opt_state: PyTree
    ema_params: PyTree  # exponential moving average of params; None when it is off
    plateau: PyTree  # Optax's state of reduction on a plateau; None under other schedules
