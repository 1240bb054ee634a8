"""The values that flow through the program, and the one error a user can cause.

Shapes are written with jaxtyping: `Float[Array, "batch classes"]` is a float array of two axes.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import optax
from jaxtyping import Array, Float, Float32, Int, PRNGKeyArray
from ml_collections import ConfigDict

Key = PRNGKeyArray
PyTree = Any
Fields = ConfigDict | Mapping[str, Any]  # a part of the config, such as `config.optim`


class UserError(Exception):
    """A mistake that the user can mend: told in one line on stderr, exit code 2, no traceback.

    The message says what is wrong, where, and what to do.
    """


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


class Metrics(NamedTuple):
    """Sums over examples; they add up over batches exactly as they do over examples."""

    loss: Float32[Array, ""]
    correct: Int[Array, ""]
    examples: Int[Array, ""]


class Layer(NamedTuple):
    """A row of a net's summary."""

    path: str  # as in the tree of parameters: "head/Dense_0"
    kind: str
    output_shape: tuple[int, ...]  # of one image
    num_params: int
    flops: int  # of one image's forward pass, 2 for a multiplication with its addition
    detail: str = ""  # a convolution's kernel, and its pool if it has one
