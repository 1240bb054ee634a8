"""What is told of a net: its layers, their parameters and flops, and what the first one weighs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs import study
from mnist_jax.models import networks, registry
from mnist_jax.report import architecture

KEY = jax.random.key(0)


@pytest.mark.parametrize("name", sorted(registry.MODELS))
def test_the_summary_counts_every_parameter(name):
    model = networks.build({"name": name, "dtype": "float32"}, 10)
    shapes = jax.eval_shape(model.init, KEY)["params"]
    total = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert sum(layer.num_params for layer in model.layers()) == total


def test_the_summary_counts_flops():
    layers = networks.build({**study.MODELS["cnn_2x2_32"], "dtype": "float32"}, 10).layers()
    assert [(row.path, row.output_shape, row.flops) for row in layers] == [
        ("Conv_0", (13, 13, 32), 2 * 27 * 27 * 2 * 2 * 32),  # before pooling: 27 x 27 places
        ("head/Dense_0", (256,), 2 * 5408 * 256),
        ("head/Dense_1", (10,), 2 * 256 * 10),
    ]


class Own(nn.Module):
    """Of what no net of ours has: other layers, a parameter outside of them, one used twice."""

    @nn.compact
    def __call__(self, x, rates):
        x = nn.Conv(4, (3, 5), strides=2)(nn.LayerNorm()(x))
        place = self.param("place", nn.initializers.normal(), (196, 4))
        shared = nn.Dense(4)
        x = shared(shared(x.reshape(len(x), 196, 4) + place[None]))
        return nn.Dense(10)(x.mean(axis=1))


def test_the_summary_of_a_net_of_other_layers():
    model = networks.from_module(Own())
    variables = model.init(KEY)
    layers = model.layers()
    assert [(row.path, row.kind, row.num_params, row.flops) for row in layers] == [
        ("LayerNorm_0", "LayerNorm", 1 + 1, 0),
        ("Conv_0", "Conv", 3 * 5 * 4 + 4, 2 * 14 * 14 * 3 * 5 * 4),
        ("Dense_0", "Dense", 4 * 4 + 4, 2 * 196 * 4 * 4),
        ("Dense_0", "Dense", 0, 2 * 196 * 4 * 4),
        ("Dense_1", "Dense", 4 * 10 + 10, 2 * 4 * 10),
        ("", "Own", 196 * 4, 0),
    ]
    assert sum(row.num_params for row in layers) == sum(x.size for x in jax.tree.leaves(variables))
    assert networks.first_weights(model, variables) is None
    assert len(architecture.architecture(layers).axes[0].patches) > len(layers)


class Recurrent(nn.Module):
    """Of layers that take their inputs by name, and whose parts return several arrays."""

    @nn.compact
    def __call__(self, x, rates):
        x = nn.RNN(nn.OptimizedLSTMCell(4))(inputs=x[..., 0])
        return nn.Dense(features=10)(inputs=x[:, -1])


def test_the_summary_of_a_recurrent_net():
    model = networks.from_module(Recurrent())
    layers, params = model.layers(), jax.tree.leaves(model.init(KEY))
    assert sum(row.num_params for row in layers) == sum(x.size for x in params)
    assert layers[-1][1:5] == ("Dense", (10,), 4 * 10 + 10, 2 * 4 * 10)


def test_first_weights_are_pictures_of_what_the_first_layer_sees():
    model = networks.build({**study.MODELS["cnn_3x3"], "dtype": "float32", "channels": (3, 4)}, 10)
    variables = model.init(KEY)
    kernel = np.asarray(variables["params"]["Conv_0"]["kernel"])
    np.testing.assert_array_equal(
        networks.first_weights(model, variables), [kernel[:, :, 0, unit] for unit in range(3)]
    )


@pytest.mark.parametrize("standardise", [False, True])
def test_first_weights_of_a_linear_net_are_those_of_each_pixel(standardise):
    model = networks.build({"name": "linear", "dtype": "float32", "standardise": standardise}, 3)
    variables = model.init(KEY)
    pixel = jnp.zeros((1, 28, 28, 1)).at[0, 20, 3].set(1.0)  # before training mean 0, variance 1
    weights = networks.first_weights(model, variables)
    assert weights.shape == (3, 28, 28)
    np.testing.assert_allclose(model.apply(variables, pixel)[0], weights[:, 20, 3], rtol=1e-3)


def test_random_features_are_no_weights_that_were_learnt():
    model = networks.build({"name": "rbf", "dtype": "float32", "features": 16}, 3)
    assert networks.first_weights(model, model.init(KEY)) is None


@pytest.mark.parametrize(("pixels", "shape"), [(784, (3, 28, 28)), (700, None)])
def test_first_weights_are_pictures_only_where_they_see_a_square(pixels, shape):
    class Some(nn.Module):
        @nn.compact
        def __call__(self, x, rates):
            return nn.Dense(3)(x.reshape(len(x), -1)[:, :pixels])

    model = networks.from_module(Some())
    weights = networks.first_weights(model, model.init(KEY))
    assert (weights if weights is None else weights.shape) == shape
