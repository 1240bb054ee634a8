"""The rows of the table: each function measures one way of using nearest neighbours."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sklearn
from jaxtyping import Array, Int32, Integer
from sklearn.metrics import confusion_matrix, f1_score
from sklearn.neighbors import KNeighborsClassifier

from mnist_jax.data import datasets, preprocess
from mnist_jax.data.datasets import Dataset
from mnist_jax.models import knn
from mnist_jax.models.knn import Metric, Neighbours, Weights
from mnist_jax.runtime import xla

FOLDS = 5
SIGMAS = (0.0, 0.5, 0.75, 1.0)  # of blurring, in pixels; 0: none
NOISE = 100  # how many levels of it are added to each pixel

Row = dict[str, Any]
Images = Integer[Array | np.ndarray, "n *pixels"]


def raw(found: Dataset, k: int = 3, metric: Metric = "l2") -> Row:
    """Raw pixels."""
    pixels = "raw" if metric == "l2" else "raw, L1"
    return {
        "what": pixels,
        **evaluate(found, found.train_images, found.test_images, k, "uniform", metric=metric),
    }


def grid(found: Dataset, ks: Sequence[int] = (3, 4, 5)) -> Row:
    """Raw pixels; k and the weights by cross-validation."""
    start = time.perf_counter()
    best = choose(found, found.train_images, ks)
    return {
        "what": f"raw; k of {', '.join(map(str, ks))} and weights by {FOLDS} folds",
        "grid_seconds": time.perf_counter() - start,
        **best,
        **evaluate(found, found.train_images, found.test_images, best["k"], best["weights"]),
    }


def preprocessed(found: Dataset, ks: Sequence[int] = range(1, 11)) -> Row:
    """Deskewing, blurring, k and the weights, all chosen by cross-validation."""
    start = time.perf_counter()
    candidates = [
        {
            "upright": upright,
            "sigma": sigma,
            **choose(found, prepare(found.train_images, upright, sigma), ks),
        }
        for upright, sigma in product((False, True), SIGMAS)
    ]
    grid_seconds = time.perf_counter() - start
    best = max(candidates, key=lambda row: row["validation_accuracy_percent"])
    steps = ["deskewed"] * best["upright"] + [f"blurred by {best['sigma']} px"] * bool(
        best["sigma"]
    )
    train, test = (
        prepare(images, best["upright"], best["sigma"])
        for images in (found.train_images, found.test_images)
    )
    return {
        "what": f"{', '.join(steps) or 'raw'}; these, k and weights by {FOLDS} folds",
        "grid_seconds": grid_seconds,
        "candidates": candidates,
        **best,
        **evaluate(found, train, test, best["k"], best["weights"]),
    }


def shifted(found: Dataset, k: int = 4, weights: Weights = "distance") -> Row:
    """Training images and their shifts by one pixel in four directions."""
    images = preprocess.shifts(jnp.asarray(found.train_images))
    return {
        "what": f"raw; training images and their shifts by a pixel: {len(images):,}",
        **evaluate(found, images, found.test_images, k, weights),
    }


def multilabel(found: Dataset, k: int = 5, folds: int = 3) -> Row:
    """Two labels per image, large (7 or more) and odd, predicted out of fold."""
    several = np.stack([found.train_labels >= 7, found.train_labels % 2 == 1], axis=1)
    groups = fold_numbers(found, folds)
    images, numbers = found.train_images, jnp.asarray(groups)
    neighbours, seconds = nearest(images, images, k, groups=(numbers, numbers))
    decided = np.asarray(knn.vote(neighbours, jnp.asarray(several, jnp.int32), 2))
    return {
        "what": f"raw; large (7 or more), odd: out of {folds} folds",
        "k": k,
        "weights": "uniform",
        "f1_macro": float(f1_score(several, decided, average="macro")),
        "f1_macro_of_folds": [
            float(f1_score(several[groups == fold], decided[groups == fold], average="macro"))
            for fold in range(folds)
        ],
        "f1_weighted": float(f1_score(several, decided, average="weighted")),
        "confusion_matrix": confusion_matrix(*(x @ [2, 1] for x in (several, decided))).tolist(),
        "seconds": seconds,
    }


def denoised(found: Dataset, k: int = 5) -> Row:
    """Distance of noisy test images from the clean ones, before and after denoising."""
    test, clean, seconds = restored(found, k)
    noisy_error, noisy_psnr = pixel_error(test, found.test_images)
    error, psnr = pixel_error(clean, found.test_images)
    return {
        "what": f"noise of 0 to {NOISE - 1} added, to be taken off",
        "k": k,
        "weights": "uniform",
        "noisy_error": noisy_error,
        "noisy_psnr": noisy_psnr,
        "error": error,
        "psnr": psnr,
        "seconds": seconds,
    }


def restored(found: Dataset, k: int = 5) -> tuple[np.ndarray, np.ndarray, float]:
    """Denoise test images by the mean of their neighbours; return both and the seconds.

    Each pixel is replaced by the mean of it in the neighbours' clean images. Uniform integers are
    added to the pixels of training images too.
    """
    rng = np.random.default_rng(0)
    train, test = (
        images + rng.integers(0, NOISE, images.shape, np.int16)
        for images in (found.train_images, found.test_images)
    )
    neighbours, seconds = nearest(test, train, k, levels=256 + NOISE - 1)
    clean = np.asarray(knn.average(neighbours, jnp.asarray(found.train_images)))
    return test, clean, seconds


def speed(found: Dataset, k: int = 5, repeats: int = 5) -> Row:
    """Time the classification of the test split, interleaved with scikit-learn's brute force.

    That gets its pixels in both precisions, converted before; ours is compiled before.
    """
    train, test = (x.reshape(len(x), -1) for x in (found.train_images, found.test_images))
    search = compile_nearest(jnp.asarray(test), jnp.asarray(train), k)
    labels = jnp.asarray(found.train_labels)

    def ours() -> np.ndarray:
        neighbours = search(jnp.asarray(test), jnp.asarray(train))
        return np.asarray(knn.vote(neighbours, labels, len(found.class_names)))

    predict = {"ours": ours}
    for dtype in ("float32", "float64"):
        peer = KNeighborsClassifier(k, algorithm="brute").fit(
            train.astype(dtype), found.train_labels
        )
        predict[dtype] = partial(peer.predict, test.astype(dtype))
    decided: dict[str, np.ndarray] = {}
    seconds: dict[str, list[float]] = {name: [] for name in predict}
    for turn in range(1 + repeats):  # the first one warms up
        for name, contender in predict.items():
            start = time.perf_counter()
            decided[name] = contender()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    far = np.asarray(knn.nearest(test, train, k + 1).distances)
    tied = far[:, k - 1] == far[:, k]  # either may be the last neighbour
    return {
        "k": k,
        "references": len(train),
        "queries": len(test),
        "seconds": {name: statistics.median(turns) for name, turns in seconds.items()},
        "seconds_of_each": seconds,
        "scikit_learn": sklearn.__version__,
        "different": int((decided["ours"] != decided["float64"]).sum()),
        "different_without_a_tie": int(((decided["ours"] != decided["float64"]) & ~tied).sum()),
    }


ROWS: dict[str, tuple[str, Callable[[Dataset], Row]]] = {  # data set and function of each
    "raw": ("mnist", raw),
    "raw-l1": ("mnist", partial(raw, metric="l1")),
    "grid": ("mnist", grid),
    "shifted": ("mnist", shifted),
    "preprocessed": ("mnist", preprocessed),
    "fashion": ("fashion_mnist", raw),
    "fashion-l1": ("fashion_mnist", partial(raw, metric="l1")),
    "multilabel": ("mnist", multilabel),
    "denoised": ("mnist", denoised),
    "speed": ("mnist", speed),
}


def evaluate(
    found: Dataset, train: Images, test: Images, k: int, weights: Weights, **options: Any
) -> Row:
    """Evaluate on the test split; `train` may hold several versions of all training images.

    Options are passed to `knn.nearest`. The row's `decided`, an array, is not meant for JSON.
    """
    neighbours, seconds = nearest(test, train, k, **options)
    labels = jnp.asarray(np.tile(found.train_labels, len(train) // len(found.train_labels)))
    decided = np.asarray(knn.vote(neighbours, labels, len(found.class_names), weights))
    return {
        "k": k,
        "weights": weights,
        "test_accuracy_percent": 100 * float((decided == found.test_labels).mean()),
        "num_test": len(decided),
        "confusion_matrix": confusion_matrix(found.test_labels, decided).tolist(),
        "seconds": seconds,
        "decided": decided,
    }


def choose(found: Dataset, train: Images, ks: Sequence[int]) -> Row:
    """Return the k and the weights of the best accuracy out of fold; the first of equals."""
    folds = fold_numbers(found, FOLDS)
    scores = knn.cross_validate(train, found.train_labels, folds, ks, len(found.class_names))
    (k, weights), best = max(scores.items(), key=lambda item: item[1].mean())
    return {"k": k, "weights": weights, "validation_accuracy_percent": 100 * float(best.mean())}


def fold_numbers(found: Dataset, folds: int) -> Int32[np.ndarray, " n"]:
    """Return the number of the fold that holds out each training example."""
    numbers = np.empty(len(found.train_labels), np.int32)
    for number, held_out in enumerate(datasets.folds(found.train_labels, folds, seed=0)):
        numbers[held_out] = number
    return numbers


def nearest(
    queries: Images,
    references: Images,
    k: int,
    groups: tuple[Array, Array] | None = None,
    **options: Any,
) -> tuple[Neighbours, float]:
    """Return the result of `knn.nearest` and its seconds without compiling."""
    queries, references = jnp.asarray(queries), jnp.asarray(references)
    search = compile_nearest(queries, references, k, groups=groups, **options)
    start = time.perf_counter()
    neighbours = jax.block_until_ready(search(queries, references, groups=groups))
    return neighbours, time.perf_counter() - start


def compile_nearest(queries: Array, references: Array, k: int, **options: Any) -> Callable:
    """Compile `knn.nearest` for arrays of these shapes."""
    return xla.compile_lowered(knn.nearest.lower(queries, references, k, **options))


def prepare(images: Images, upright: bool, sigma: float) -> Array:
    """Deskew and blur images, as the arguments ask."""
    images = jnp.asarray(images)
    images = preprocess.deskew(images) if upright else images
    return preprocess.blur(images, sigma) if sigma else images


def pixel_error(pixels: np.ndarray, clean: np.ndarray) -> tuple[float, float]:
    """Return the mean absolute error in grey levels and the PSNR in decibels."""
    difference = pixels.astype(np.float64) - clean
    psnr = 10 * np.log10(255**2 / np.mean(difference**2))
    return float(np.abs(difference).mean()), float(psnr)
