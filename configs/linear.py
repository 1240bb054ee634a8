"""X."""

from ml_collections import ConfigDict

from mnist_jax import config as defaults


def get_config(dataset: str = "mnist") -> ConfigDict:
    """The configuration for a data set."""
    config = defaults.default()
    config.data.name = dataset
    config.data.offline_fallback = True
    config.model.name = "linear"
    return config
