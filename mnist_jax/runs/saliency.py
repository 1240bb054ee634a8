"""What a decision rests on: the image is covered piece by piece, and the net asked again.

Of a net of a few convolutions this tells more than its gradient, which is noise from pixel to
pixel, and it takes no program but the one that evaluates.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

SIDE, STRIDE = 4, 2  # of the square that covers, and from one of its places to the next


def occlusion(
    score: Callable[[UInt8[np.ndarray, "m h w 1"]], Float32[np.ndarray, "m classes"]],
    images: UInt8[np.ndarray, "n h w 1"],
    chosen: Int[np.ndarray, "n"],
    other: Int[np.ndarray, "n"],
) -> Float[np.ndarray, "n h w"]:
    """How much each pixel speaks for one class rather than another (Zeiler and Fergus 2014).

    A pixel's relevance is the mean, over all places of a black square that covers it, of how much
    the square lowers score(chosen) - score(other). With a linear score that is the sum of weight
    times brightness under the square.

    Args:
      score: images -> a score of each class; called once, with every image under every square.
      images: of even height and width.
      chosen: a class for each image.
      other: the class it is held against.

    Returns:
      float64, in the units of the scores; negative where a pixel speaks for the other class.
    """
    n, height, width, _ = images.shape
    if not n:
        return np.zeros((0, height, width))
    squares = places(height, width)
    covered = np.where(squares[None, ..., None], np.uint8(0), images[:, None])
    asked = np.concatenate([images[:, None], covered], axis=1)  # (n, 1 + places, h, w, 1)
    scores = score(asked.reshape(-1, height, width, 1)).reshape(n, 1 + len(squares), -1)
    rows = np.arange(n)
    margins = scores[rows, :, chosen].astype(np.float64) - scores[rows, :, other]
    lowered = margins[:, :1] - margins[:, 1:]
    return np.tensordot(lowered, squares.astype(np.float64), axes=1) / squares.sum(axis=0)


def places(height: int, width: int) -> Bool[np.ndarray, "places h w"]:
    """The pixels under the square in each of its places; every pixel of an even side is in one."""

    def covers(length: int) -> Bool[np.ndarray, "starts length"]:
        starts = np.arange(0, length - SIDE + 1, STRIDE)[:, None]
        return (starts <= np.arange(length)) & (np.arange(length) < starts + SIDE)

    rows, columns = covers(height), covers(width)
    return (rows[:, None, :, None] & columns[None, :, None, :]).reshape(-1, height, width)
