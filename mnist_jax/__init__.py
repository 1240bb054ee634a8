"""A functional JAX lab for small-image classification.

The names below are the package's stable surface. They are imported when first used, so that
`import mnist_jax` costs nothing; everything else is in the modules they come from.

>>> import tempfile
>>> from pathlib import Path
>>> import mnist_jax
>>> config = mnist_jax.default_config()  # every key; a file in configs/ starts from here
>>> config.data.name, config.model.name, config.train.epochs = "digits", "linear", 5
>>> examples = mnist_jax.load_splits(config)  # uint8 NumPy arrays
>>> examples.test.images.shape
(360, 28, 28, 1)
>>> runs = tempfile.TemporaryDirectory()
>>> workdir = Path(runs.name, "linear")
>>> summary = mnist_jax.train_run(config, examples, workdir, log=lambda line: None)
>>> net = mnist_jax.load(workdir)
>>> probabilities = net(examples.test.images)
>>> probabilities.shape
(360, 10)
>>> errors = (probabilities.argmax(1) != examples.test.labels).sum()
>>> bool(errors == summary["test_errors"])
True
>>> runs.cleanup()

`net.read("three.jpg")` makes such an image of a drawing or a photograph.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnist_jax.config import default as default_config
    from mnist_jax.data.datasets import load as load_data
    from mnist_jax.data.splits import load as load_splits
    from mnist_jax.models.networks import build as build_model
    from mnist_jax.predict.classifier import load
    from mnist_jax.runs.evaluation import evaluate_run
    from mnist_jax.runs.training import train_run
    from mnist_jax.types import UserError
else:
    # No name is a module's: importing a module sets the attribute of its name.
    _HOMES = {
        "UserError": "types.UserError",
        "build_model": "models.networks.build",
        "default_config": "config.default",
        "evaluate_run": "runs.evaluation.evaluate_run",
        "load": "predict.classifier.load",
        "load_data": "data.datasets.load",
        "load_splits": "data.splits.load",
        "train_run": "runs.training.train_run",
    }

    def __getattr__(name):
        """Return a public name from its module (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module 'mnist_jax' has no attribute '{name}'")
        module, _, attribute = _HOMES[name].rpartition(".")
        return getattr(importlib.import_module(f"mnist_jax.{module}"), attribute)

    def __dir__():
        return sorted({*globals(), *_HOMES})


__all__ = [
    "UserError",
    "build_model",
    "default_config",
    "evaluate_run",
    "load",
    "load_data",
    "load_splits",
    "train_run",
]
