"""configs/study.py: nets of known sizes, data sets, and names that are refused."""

import math
from pathlib import Path

import jax
import pytest

from configs import study
from mnist_jax import config
from mnist_jax.cli import commands, flags
from mnist_jax.models import networks, registry
from mnist_jax.types import UserError

CONFIG = Path(__file__).parent.parent / "configs/study.py"

# For ten classes and 28x28x1.
NUM_PARAMS = {
    "mlp_512": 407_050,
    "mlp_512_256": 535_818,
    "mlp_400_200_100": 415_310,
    "cnn_2x2_32": 1_387_434,
    "cnn_3x3": 824_458,
    "cnn_5x5_3x3": 887_530,
    "cnn_5x5_3x3_small": 101_098,
    "cnn_6x6_3x3": (
        (6 * 6 * 1 * 64 + 64)  # 28x28, pooled to 14x14
        + (6 * 6 * 64 * 64 + 64)
        + (3 * 3 * 64 * 128 + 128)  # pooled to 7x7
        + (3 * 3 * 128 * 256 + 256)
        + (3 * 3 * 256 * 256 + 256)  # pooled to 3x3: the odd row and column are dropped
        + (3 * 3 * 256 * 128 + 128)
        + (128 * 64 + 64)
        + (64 * 10 + 10)
    ),
}


def fields(net):
    return registry.fields(study.MODELS[net])


@pytest.mark.parametrize("net", study.MODELS)
def test_number_of_parameters(net):
    model = networks.build({**study.MODELS[net], "dtype": "float32"}, 10)
    params = jax.eval_shape(model.init, jax.random.key(0))["params"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == NUM_PARAMS[net]
    assert sum(layer.num_params for layer in model.layers()) == NUM_PARAMS[net]


def test_settings_that_do_not_change_the_number_of_parameters():
    assert fields("mlp_512")["activation"] == "sigmoid"
    assert fields("mlp_400_200_100")["dropout"] == (0.0, 0.2, 0.2)
    assert fields("cnn_2x2_32")["padding"] == "VALID"
    assert fields("cnn_5x5_3x3")["conv_dropout"] == (0.0, 0.3, 0.0, 0.3)
    assert fields("cnn_5x5_3x3")["dropout"] == (0.5,)
    assert fields("cnn_6x6_3x3")["dropout"] == (0.2, 0.2)
    for net in study.MODELS:
        assert fields(net).get("batch_norm") in (None, False)
        assert fields(net).get("activation") == ("sigmoid" if net == "mlp_512" else "relu")


@pytest.mark.parametrize("dataset", ["", "digits", "csv:some/file.csv"])
@pytest.mark.parametrize("net", study.MODELS)
def test_net_and_data_set(net, dataset):
    options = flags.parse([f"--config={CONFIG}:{net}" + f",{dataset}" * bool(dataset)])
    assert registry.fields(options.config.model) == fields(net)
    assert options.config.data.name == dataset or (
        not dataset and options.config.data.name in ("mnist", "fashion_mnist")
    )
    assert options.config.data.offline_fallback is True
    assert options.config_name == f"study-{net}"
    assert commands.run_name(options, "digits") == f"study-{net}-digits-s0"


def test_data_set_and_training_of_the_study():
    def training(net):
        found = study.get_config(net)
        return found.data.name, found.train.epochs, found.train.batch_size

    assert training("mlp_400_200_100") == ("fashion_mnist", 50, 10)
    assert training("cnn_5x5_3x3_small") == ("mnist", 10, 86)
    default = config.default()
    assert training("cnn_3x3") == ("mnist", default.train.epochs, default.train.batch_size)


def test_offline_fallback_keeps_the_net():
    options = flags.parse([f"--config={CONFIG}:mlp_512,mnist"], dataset="digits")
    assert options.config.data.name == "digits"
    assert registry.fields(options.config.model) == fields("mlp_512")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (":cnn_3x4", "no net 'cnn_3x4'; there are mlp_512, .*; did you mean 'cnn_3x3'\\?$"),
        (":digits", "no net 'digits'; there are mlp_512, "),
        ("", "no net ''; there are mlp_512, "),
    ],
)
def test_unknown_net_is_one_line(argument, message):
    with pytest.raises(UserError, match=rf"^configs/study\.py: {message}") as error:
        flags.parse([f"--config={CONFIG}{argument}"])
    assert "\n" not in str(error.value)
