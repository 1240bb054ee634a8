"""How near pictures are, against NumPy and SciPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from mnist_jax.analysis import image_quality


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    clean = rng.uniform(size=(7, 784)).astype(np.float32)
    return np.clip(clean + rng.normal(0, 0.1, clean.shape), 0, 1).astype(np.float32), clean


def structural_similarity(a, b):
    """Wang et al. 2004 with SciPy's filter, where its window is inside."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    blur = lambda x: gaussian_filter(x, 1.5, truncate=3.5)  # noqa: E731
    u, v = blur(a), blur(b)
    top = (2 * u * v + 1e-4) * (2 * (blur(a * b) - u * v) + 9e-4)
    bottom = (u**2 + v**2 + 1e-4) * (blur(a * a) - u**2 + blur(b * b) - v**2 + 9e-4)
    return (top / bottom)[5:-5, 5:-5].mean()


def test_against_numpy_and_scipy(pair):
    report = image_quality.compare(*map(jnp.asarray, pair))
    restored, clean = (x.astype(np.float64) for x in pair)
    mse = ((restored - clean) ** 2).mean()
    np.testing.assert_allclose(report.loss, mse, rtol=1e-5)
    np.testing.assert_allclose(report.psnr, 10 * np.log10(1 / mse), rtol=1e-5)
    np.testing.assert_allclose(report.pixel_error, 255 * abs(restored - clean).mean(), rtol=1e-5)
    images = [x.reshape(-1, 28, 28) for x in pair]
    expected = np.mean([structural_similarity(a, b) for a, b in zip(*images, strict=True)])
    np.testing.assert_allclose(report.ssim, expected, rtol=1e-4)


def test_the_same_image_is_as_similar_as_can_be(pair):
    report = image_quality.compare(jnp.asarray(pair[1]), jnp.asarray(pair[1]))
    assert float(report.ssim) == pytest.approx(1)
    assert np.isinf(report.psnr)
    assert float(report.pixel_error) == 0
