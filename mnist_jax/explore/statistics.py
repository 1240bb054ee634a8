"""Statistics of a data set: images and labels in, NumPy arrays out."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Int32, UInt8


class Components(NamedTuple):
    """Principal components of images, the one of largest variance first."""

    scores: Float32[np.ndarray, "n k"]
    share: Float32[np.ndarray, " k"]  # of the variance of all pixels; NaN if all are black


def of_class(labels: Int[np.ndarray, " n"], label: int, limit: int, seed: int) -> list[int]:
    """Return indices of at most `limit` random examples of a class, ascending."""
    own = np.flatnonzero(labels == label)
    return np.sort(np.random.default_rng(seed).permutation(own)[:limit]).tolist()


def class_mean(
    images: UInt8[np.ndarray, "n h w 1"], labels: Int[np.ndarray, " n"], label: int
) -> UInt8[np.ndarray, "h w 1"]:
    """Return the mean image of a class that has an example, rounded to grey levels."""
    return np.round(images[labels == label].mean(axis=0)).astype(np.uint8)


def pixel(images: UInt8[np.ndarray, "n h w 1"]) -> tuple[float, float]:
    """Mean and standard deviation of all pixels, white being 1."""
    mean = float(images.mean())
    square = float(np.square(images, dtype=np.uint16).mean())  # a quarter of what `std` holds
    return mean / 255, (square - mean**2) ** 0.5 / 255


def total_intensity(images: UInt8[np.ndarray, "n h w 1"]) -> Float[np.ndarray, " n"]:
    """Return the sum of each image's pixels, in white pixels."""
    return images.sum(axis=(1, 2, 3), dtype=np.int64) / 255


def density(
    values: Float[np.ndarray, " n"], at: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """Estimate the values' density with a Gaussian kernel by Scott's rule (Scott 1992).

    It is 0 throughout where the values do not differ, and so have no density.
    """
    from scipy.stats import gaussian_kde

    return gaussian_kde(values)(at) if values.size and np.ptp(values) > 0 else np.zeros_like(at)


def principal_components(images: UInt8[np.ndarray, "n h w 1"], limit: int = 50) -> Components:
    """At most `limit` principal components of at least two images, their pixels in [0, 1]."""
    from sklearn.decomposition import PCA

    pixels = images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
    # Of the exact solvers this one takes 60,000 images in seconds, and no second copy of them.
    pca = PCA(min(limit, *pixels.shape), svd_solver="covariance_eigh")
    with np.errstate(invalid="ignore"):  # black images: 0 of a variance of 0
        scores = pca.fit_transform(pixels)
    return Components(scores, pca.explained_variance_ratio_)


def unusual(
    scores: Float32[np.ndarray, "n k"], labels: Int32[np.ndarray, " n"], label: int, limit: int
) -> list[int]:
    """Return indices of the examples of a class by distance from its mean, the farthest first.

    Far is Mahalanobis's distance: directions in which the class varies anyway count for little. Its
    covariance is shrunk (Ledoit and Wolf 2004), so that a small class has one too. Of fewer than
    three examples none is unusual.
    """
    from sklearn.covariance import LedoitWolf

    own = np.flatnonzero(labels == label)
    if len(own) < 3:
        return []
    distances = LedoitWolf().fit(scores[own]).mahalanobis(scores[own])
    return own[np.argsort(-distances, kind="stable")[:limit]].tolist()


def duplicates(images: UInt8[np.ndarray, "n h w 1"]) -> list[list[int]]:
    """Return groups of indices, ascending, of images that are equal pixel for pixel."""
    groups: dict[bytes, list[int]] = {}  # a dict compares keys of equal hashes
    for index, image in enumerate(images):
        groups.setdefault(image.tobytes(), []).append(index)
    return [group for group in groups.values() if len(group) > 1]
