"""This package's own recipes: the files in configs/."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8

from experiments.time_to_accuracy.recipes import Data, Training
from mnist_jax import train
from mnist_jax.cli import flags
from mnist_jax.runtime import xla
from mnist_jax.train import evaluate
from mnist_jax.types import UserError


def config_file(file: str, data: Data, seed: int) -> Training:
    """Train by a config, without the checkpoints and the report of a run.

    Args:
      file: as after --config=, with its data set: "configs/mlp.py:mnist".
      data: replaces the data that the config names.
      seed: of everything except the data.

    Raises:
      UserError: the config is invalid, or its schedule needs the validation loss.
    """
    config = flags.parse([f"--config={file}", f"--config.seed={seed}"]).config
    recipe = train.make_recipe(config, 10, len(data.train_labels))
    if recipe.plateau:
        raise UserError(f"{file}: a schedule that watches the validation loss is not followed here")
    hparams, root = train.make_hparams(config), jax.random.key(seed)
    examples = jnp.asarray(data.train_images), jnp.asarray(data.train_labels)
    start = time.perf_counter()
    state = jax.jit(train.init_state, static_argnums=0)(recipe, hparams, root)
    lowered = train.train_epoch.lower(recipe, state, *examples, hparams, root)
    epoch = xla.compile_lowered(lowered)
    compile_seconds = time.perf_counter() - start

    def train_epoch() -> None:
        nonlocal state
        state = jax.block_until_ready(epoch(state, *examples, hparams, root))[0]

    @functools.cache
    def predicting(size: int) -> jax.stages.Compiled:
        images = jax.ShapeDtypeStruct((size, 28, 28, 1), jnp.uint8)
        lowered = evaluate.predict.lower(recipe.model, train.variables(state), images)
        return xla.compile_lowered(lowered, predicts=True)

    def predict(images: UInt8[np.ndarray, "n 28 28 1"]) -> Int[np.ndarray, " n"]:
        logits = predicting(len(images))(train.variables(state), jnp.asarray(images))
        return np.asarray(logits.argmax(-1))

    num_params = sum(x.size for x in jax.tree.leaves(state.params))
    return Training(config.train.epochs, num_params, compile_seconds, train_epoch, predict)
