"""What test_sharding.py has done on several devices: `python on_devices.py FOLDER RUN`.

XLA_FLAGS=--xla_force_host_platform_device_count=N makes N devices of a CPU.
"""

import json
import signal
import sys
from pathlib import Path

import jax
import numpy as np

from mnist_jax import config as configs
from mnist_jax import train
from mnist_jax.data import splits
from mnist_jax.models import conv
from mnist_jax.runs import evaluation, training
from mnist_jax.runtime import progress, sharding, xla
from mnist_jax.train import evaluate

BATCH = 24  # of no other meaning in the programs below
TRAIN = 5 * BATCH + 3  # examples, few: where a ReLU or a pool tips over, what follows is not close
# A net with all that sums over a batch or draws random numbers for it.
EVERYTHING = {
    "data.name": "digits",
    "train.batch_size": BATCH,
    "model.name": "cnn",
    "model.channels": (4, 6),
    "model.widths": (16,),
    "model.activation": "tanh",
    "model.dropout": (0.3,),
    "model.conv_dropout": (0.1,),
    "train.augment.rotation": 10.0,
    "train.augment.shift": 0.1,
    "train.augment.erase": 0.5,
    "train.augment.flip": 0.5,
    "optim.label_smoothing": 0.1,
    "optim.clip": 1.0,
    "optim.ema": 0.9,
}
# Flax's own batch normalisation, of the inputs.
STANDARDISED = {
    "data.name": "digits",
    "train.batch_size": BATCH,
    "model.name": "linear",
    "model.standardise": True,
}
# A run to the end: quick to compile, and with a state beside the parameters.
MLP = {
    "data.name": "digits",
    "model.name": "mlp",
    "model.widths": (16,),
    "model.activation": "tanh",
    "model.dropout": (0.2,),
    "train.epochs": 4,
    "train.augment.shift": 0.1,
    "optim.schedule": "plateau",
    "optim.learning_rate": 0.01,
}
STOPPED = 2  # epochs
SIZES = [(TRAIN, BATCH), (103, 7), (3, 500)]  # examples and batch size, at odds with each other


def make_config(overrides):
    config = configs.default()
    config.update_from_flattened_dict(overrides)
    configs.validate(config)
    return config


def epoch(folder, name, overrides, mesh):
    """An epoch: the program and the results; what comes of it."""
    config = make_config(overrides)
    examples = splits.load(config)
    recipe = train.make_recipe(config, 10, TRAIN, mesh)
    data = sharding.put_replicated(mesh, tuple(x[:TRAIN] for x in examples.train))
    numbers = train.make_hparams(config), jax.random.key(config.seed)
    init = jax.jit(train.init_state, static_argnums=0, out_shardings=sharding.replicated(mesh))
    state = init(recipe, *numbers)
    lowered = train.train_epoch.lower(recipe, state, *data, *numbers)
    compiled = xla.compile_lowered(lowered)
    (folder / f"{name}.hlo").write_text(compiled.as_text())
    state, sums, _ = compiled(state, *data, *numbers)
    assert all(x.sharding.is_fully_replicated for x in jax.tree.leaves((state, sums)))
    named, _ = jax.tree.flatten_with_path((state, sums))
    np.savez(folder / f"{name}.npz", **{jax.tree_util.keystr(k): np.asarray(v) for k, v in named})
    return recipe, state, data


def train_and_predict(folder, mesh):
    """An epoch of two nets and some logits of the first: programs and results."""
    epoch(folder, "standardised", STANDARDISED, mesh)
    recipe, state, data = epoch(folder, "epoch", EVERYTHING, mesh)
    variables, (images, _) = train.variables(state), data
    logits = {}
    for n, size in SIZES:
        args = recipe.model, variables, images[:n], size, mesh
        logits[f"{n} by {size}"] = evaluate.predict(*args)
    assert all(x.sharding.is_fully_replicated for x in logits.values())
    np.savez(folder / "logits.npz", **logits)
    lowered = evaluate.predict.lower(recipe.model, variables, images, BATCH, mesh)
    compiled = xla.compile_lowered(lowered, predicts=True)
    (folder / "predict.hlo").write_text(compiled.as_text())


def convolve(folder, mesh):
    """The gradient of a kernel that is large enough for Winograd's way, in two layers."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((BATCH, 8, 8, 48), np.float32)
    kernel = rng.standard_normal((3, 3, 48, 48), np.float32) / 20

    def net(kernel, images):
        return conv.conv2d(conv.conv2d(images, kernel), kernel)

    def loss(kernel, images):
        return (sharding.shard_map(mesh, net, True)(kernel, images) ** 2).mean()

    on_devices = sharding.put_replicated(mesh, (kernel, images))
    compiled = xla.compile_lowered(jax.jit(jax.grad(loss)).lower(*on_devices))
    (folder / "convolve.hlo").write_text(compiled.as_text())
    np.savez(folder / "convolve.npz", kernel=compiled(*on_devices))


def whole_run(workdir, stop=None):
    """A run to its end, or until an epoch; goes on with what is in the workdir."""
    config = make_config(MLP)

    def log(line):
        if line.startswith(f"epoch {stop}/"):
            signal.raise_signal(signal.SIGTERM)

    try:
        training.train_run(config, splits.load(config), workdir, log=log)
    except progress.Stopped:
        assert stop


if __name__ == "__main__":
    folder, workdir = (Path(argument) for argument in sys.argv[1:])
    folder.mkdir()
    train_and_predict(folder, sharding.make_mesh())
    convolve(folder, sharding.make_mesh())
    whole_run(workdir, None if workdir.exists() else STOPPED)
    (folder / "evaluated.json").write_text(json.dumps(evaluation.evaluate_run(workdir, "test")))
