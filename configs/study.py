"""The nets of five earlier studies of MNIST and Fashion-MNIST, by name.

python -m mnist_jax.main --config=configs/study.py:NET[,DATASET]

NET is a key of `MODELS`. Each net has the data set, epochs and batch size of its study, or else
MNIST and the defaults; the optimizer is Adam at 0.001. `python -m experiments.study` trains them
and compares them with ours.
"""

from typing import Any

from ml_collections import ConfigDict

from mnist_jax import config as defaults
from mnist_jax.types import UserError

_CNN = {"name": "cnn", "batch_norm": False}
_CNN_5X5_3X3 = {
    **_CNN,
    "channels": (32, 32, 64, 64),
    "kernels": (5, 5, 3, 3),
    "pools": (1, 2, 1, 2),
    "conv_dropout": (0.0, 0.3, 0.0, 0.3),
    "dropout": (0.5,),
}

# The settings of each net, as in `config.model`.
MODELS: dict[str, dict[str, Any]] = {
    "mlp_512": {"name": "mlp", "widths": (512,), "activation": "sigmoid"},
    "mlp_512_256": {"name": "mlp", "widths": (512, 256)},
    "mlp_400_200_100": {"name": "mlp", "widths": (400, 200, 100), "dropout": (0.0, 0.2, 0.2)},
    "cnn_2x2_32": {**_CNN, "channels": (32,), "kernels": (2,), "padding": "VALID"},
    "cnn_3x3": {**_CNN, "channels": (32, 64), "kernels": (3,)},
    "cnn_5x5_3x3": _CNN_5X5_3X3,
    "cnn_5x5_3x3_small": {**_CNN_5X5_3X3, "pools": (2,)},
    "cnn_6x6_3x3": {
        **_CNN,
        "channels": (64, 64, 128, 256, 256),
        "kernels": (6, 6, 3, 3, 3),
        "pools": (2, 1, 2, 1, 2),
        "widths": (128, 64),
        "dropout": (0.2,),
    },
}

# Data set, epochs and batch size of each net in its study; of `mlp_512`, which was trained on all
# examples as one batch (`experiments.by_hand`), only the data set. `cnn_3x3` is in no study.
_TRAINING = {
    "mlp_512": ("fashion_mnist", 10, 128),
    "mlp_512_256": ("fashion_mnist", 30, 32),
    "mlp_400_200_100": ("fashion_mnist", 50, 10),
    "cnn_2x2_32": ("fashion_mnist", 10, 32),
    "cnn_5x5_3x3": ("mnist", 10, 86),
    "cnn_5x5_3x3_small": ("mnist", 10, 86),
    "cnn_6x6_3x3": ("fashion_mnist", 20, 32),
}


def get_config(net: str = "") -> ConfigDict:
    """Return the configuration for a net, given as NET or NET,DATASET."""
    name, _, dataset = net.partition(",")
    if name not in MODELS:
        hint = defaults.suggestion(name, MODELS)
        raise UserError(f"configs/study.py: no net '{name}'; there are {', '.join(MODELS)}{hint}")
    config = defaults.default()
    if name in _TRAINING:
        config.data.name, config.train.epochs, config.train.batch_size = _TRAINING[name]
    config.data.name = dataset or config.data.name
    config.data.offline_fallback = True
    config.model.update(MODELS[name])
    return config
