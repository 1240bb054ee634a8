"""This package: an epoch is one program of all devices."""

from functools import cache

import jax

from experiments.speed.peers import Peer, Task
from experiments.timing import device_peak_bytes
from mnist_jax import config as configs
from mnist_jax import train
from mnist_jax.runtime import sharding, xla
from mnist_jax.train import evaluate


def make(task: Task, *, by_core: bool = False) -> Peer:
    """Make a net that `train.train_epoch` trains.

    Raises:
      RuntimeError: `by_core` without a CPU, whose devices $JAX_NUM_CPU_DEVICES sets.
      UserError: the batch size is not a multiple of the number of devices.
    """
    if by_core and jax.default_backend() != "cpu":
        raise RuntimeError("it is for CPUs")
    config = configs.default()
    for field, value in task.net.items():  # lists, where they came as JSON
        config.model[field] = tuple(value) if isinstance(value, list) else value
    config.model.matmul_precision = "default"  # TF32 on a GPU
    config.train.batch_size = task.batch_size
    mesh = sharding.make_mesh()
    sharding.check_batch_size(task.batch_size, mesh.size)
    recipe = train.make_recipe(config, 10, len(task.train_labels), mesh)
    hparams, root = train.make_hparams(config), jax.random.key(0)
    images, labels, test = sharding.put_replicated(mesh, task[2:])
    init = jax.jit(train.init_state, static_argnums=0, out_shardings=sharding.replicated(mesh))
    state = init(recipe, hparams, root)

    # Compiled at the first call, as in the other peers.
    @cache
    def epoch() -> jax.stages.Compiled:
        lowered = train.train_epoch.lower(recipe, state, images, labels, hparams, root)
        return xla.compile_lowered(lowered)

    @cache
    def forward() -> jax.stages.Compiled:
        lowered = evaluate.predict.lower(recipe.model, train.variables(state), test, mesh=mesh)
        return xla.compile_lowered(lowered, predicts=True)

    def fit() -> None:
        nonlocal state
        state, *measured = epoch()(state, images, labels, hparams, root)
        jax.block_until_ready((state, measured))

    def predict() -> None:
        jax.block_until_ready(forward()(train.variables(state), test))

    return Peer(fit, predict, device_peak_bytes)
