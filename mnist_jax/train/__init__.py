"""Training as pure functions: states, steps, epochs, trials.

The names of `train.step` are here too, loaded on first use: `from mnist_jax import train`, then
`train.make_recipe`, `train.init_state`, `train.train_epoch`. The registries
(`train.optim`) can be read without importing JAX.
"""

import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnist_jax.analysis.metrics import Metrics as Metrics
    from mnist_jax.train.step import Examples as Examples
    from mnist_jax.train.step import Norms as Norms
    from mnist_jax.train.step import Recipe as Recipe
    from mnist_jax.train.step import draw_batches as draw_batches
    from mnist_jax.train.step import end_epoch as end_epoch
    from mnist_jax.train.step import init_state as init_state
    from mnist_jax.train.step import learning_rate as learning_rate
    from mnist_jax.train.step import make_hparams as make_hparams
    from mnist_jax.train.step import make_recipe as make_recipe
    from mnist_jax.train.step import measure as measure
    from mnist_jax.train.step import train_batches as train_batches
    from mnist_jax.train.step import train_epoch as train_epoch
    from mnist_jax.train.step import train_step as train_step
    from mnist_jax.train.step import variables as variables
else:

    def __getattr__(name):
        """Return a name of `train.step` (PEP 562)."""
        if name.startswith("_") or importlib.util.find_spec(f"mnist_jax.train.{name}"):
            raise AttributeError(f"module 'mnist_jax.train' has no attribute '{name}'")
        return getattr(importlib.import_module("mnist_jax.train.step"), name)
