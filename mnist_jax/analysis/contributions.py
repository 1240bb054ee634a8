"""Contributions of single images to a score, from which its sampling variance follows.

Accuracy is a mean over images. PSNR and macro F1 are smooth functions of such means; the first
terms of their Taylor series are the contributions (linearization, the delta method).
"""

import numpy as np
from jaxtyping import Float, Float32, Shaped


def of_images(
    score: str, scores: Float32[np.ndarray, "trials n ..."], truth: Shaped[np.ndarray, "n ..."]
) -> Float[np.ndarray, "trials n"]:
    """Return the contribution of each image to the score of each trial; their mean is the score.

    Args:
      score: "accuracy", "macro_f1" or "psnr".
      scores: of classes or labels, or restored pixels, in which case 0 is black and 1 white.
      truth: classes, rows of 0s and 1s for labels, or clean pixels.
    """
    return np.stack([_OF[score](one.reshape(len(truth), -1), truth) for one in scores])


def _accuracy(
    scores: Float32[np.ndarray, "n classes"], classes: Shaped[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    return (scores.argmax(axis=1) == classes).astype(np.float64)


def _psnr(
    pixels: Float32[np.ndarray, "n pixels"], clean: Float32[np.ndarray, "n pixels"]
) -> Float[np.ndarray, " n"]:
    errors = np.square(np.clip(pixels, 0, 1) - clean).mean(axis=1, dtype=np.float64)
    mean = errors.mean()
    with np.errstate(divide="ignore", invalid="ignore"):  # no error at all: no finite PSNR
        return -10 * np.log10(mean) - 10 / np.log(10) * (errors / mean - 1)


def _macro_f1(
    scores: Float32[np.ndarray, "n labels"], labels: Shaped[np.ndarray, "n labels"]
) -> Float[np.ndarray, " n"]:
    said, true = scores > 0, labels > 0
    hits, total = 2.0 * (said & true), 1.0 * said + true
    a, b = hits.mean(axis=0), np.maximum(total.mean(axis=0), 1 / len(labels))
    return (a / b + (hits - a) / b - (total - b) * a / b**2).mean(axis=1)


_OF = {"accuracy": _accuracy, "psnr": _psnr, "macro_f1": _macro_f1}
