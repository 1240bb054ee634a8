"""Pictures of nets: everything that the net's layers say is on them."""

import pytest
from matplotlib.patches import Rectangle

from configs import study
from mnist_jax.models import networks
from mnist_jax.report import architecture, plots

NETS = {
    **{name: {"name": name} for name in ("linear", "rbf", "mlp", "cnn")},
    "cnn_6x6_3x3": study.MODELS["cnn_6x6_3x3"],
}


@pytest.mark.parametrize("name", NETS)
def test_every_layer_is_drawn(name):
    layers = networks.build({"dtype": "float32", **NETS[name]}, 10).layers()
    drawn = [layer for layer in layers if layer.kind != "BatchNorm"]
    figure = architecture.architecture(layers)
    told = plots.svg(figure, name)
    for layer in drawn:
        assert "×".join(map(str, layer.output_shape)) in told
    (axes,) = figure.axes
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    vectors = sum(len(layer.output_shape) == 1 for layer in drawn)
    sheets = len(boxes) - vectors - 1  # and one the image
    assert sheets == 6 * (len(drawn) - vectors)
    *each, total = (
        int(text.get_text().split("\n")[-1].split()[0].replace(",", ""))
        for text in axes.texts
        if "parameters" in text.get_text()
    )
    assert sum(each) == total == sum(layer.num_params for layer in layers)
    assert f"{total:,} parameters in all" in told


def test_a_convolution_says_its_kernel_pool_and_normalisation():
    told = plots.svg(architecture.architecture(_layers("cnn")), "cnn")
    assert "3×3, pool 2, batch norm" in told
    assert "14×14×32" in told


def _layers(name):
    return networks.build({"name": name, "dtype": "float32"}, 10).layers()
