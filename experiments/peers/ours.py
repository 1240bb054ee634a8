"""This package: an epoch is one program."""

import jax
import jax.numpy as jnp

from experiments.memory import jax_peak_bytes
from experiments.peers import Peer, Task
from mnist_jax import config as configs
from mnist_jax import evaluate, train


def make(task: Task) -> Peer:
    """The net, to be trained by `train.train_epoch`."""
    config = configs.default()
    config.model.name = task.net["name"]
    config.train.batch_size = task.batch_size
    recipe = train.make_recipe(config, 10, len(task.train_labels))
    hparams, root = train.make_hparams(config), jax.random.key(0)
    images, labels, test = map(jnp.asarray, task[2:])
    state = jax.jit(train.init_state, static_argnums=0)(recipe, hparams, root)

    def fit() -> None:
        nonlocal state
        state, sums = train.train_epoch(recipe, state, images, labels, hparams, root)
        jax.block_until_ready((state, sums))

    def predict() -> None:
        jax.block_until_ready(evaluate.predict(recipe.model, train.variables(state), test))

    return Peer(fit, predict, jax_peak_bytes)
