"""Figures side by side in one picture: the ink of each."""

import numpy as np
from jaxtyping import Float
from scipy import ndimage

_TALL = 0.5  # of the tallest piece: a figure; smaller pieces belong to the nearest
_GAP = 0.03  # of the height of all ink: pieces closer than that are one
_BROKEN = 0.2  # of the lower one's height: a gap between pieces of a figure, one over the other


def split(ink: Float[np.ndarray, "h w"]) -> list[Float[np.ndarray, "h2 w2"]]:
    """Return the ink of each figure, row by row from left to right, without the blank border."""
    (everything,) = ndimage.find_objects((ink > 0).astype(np.int8))
    reach = round(_GAP * _length(everything[0]) / 2)
    ink = ink[tuple(slice(max(0, x.start - reach), x.stop + reach) for x in everything)]
    thick = ndimage.maximum_filter(ink > 0, 1 + 2 * reach)
    pieces, _ = ndimage.label(thick, np.ones((3, 3)))
    boxes = ndimage.find_objects(pieces)
    tallest = max(_length(y) for y, _ in boxes)
    tall = [i for i, (y, _) in enumerate(boxes, 1) if _length(y) >= _TALL * tallest]
    figures = np.zeros(len(boxes) + 1, int)
    for i in tall:
        same = (figures[j] for j in tall if figures[j] and _above(boxes[i - 1], boxes[j - 1]))
        figures[i] = next(same, i)
    owners = figures[pieces]
    y, x = ndimage.distance_transform_edt(owners == 0, return_distances=False, return_indices=True)
    owners = np.where(ink > 0, owners[y, x], 0)
    found = ndimage.find_objects(owners)
    order = _reading_order({i: box for i, box in enumerate(found, 1) if box})
    return [np.where(owners == i, ink, 0) for i in order]


def _length(edge: slice) -> int:
    return edge.stop - edge.start


def _overlap(a: slice, b: slice) -> int:
    """Return the length that two edges share; the gap between them is negative."""
    return min(a.stop, b.stop) - max(a.start, b.start)


def _above(a: tuple[slice, slice], b: tuple[slice, slice]) -> bool:
    """Return whether two boxes (y, x) are pieces of one figure, one just above the other."""
    close = -_overlap(a[0], b[0]) < _BROKEN * min(_length(a[0]), _length(b[0]))
    return close and 2 * _overlap(a[1], b[1]) > min(_length(a[1]), _length(b[1]))


def _reading_order(boxes: dict[int, tuple[slice, slice]]) -> list[int]:
    rows: list[list[int]] = []
    for i in sorted(boxes, key=lambda i: boxes[i][0].start):
        y = boxes[i][0]
        first = boxes[rows[-1][0]][0] if rows else slice(0, 0)
        if rows and 2 * _overlap(y, first) > min(_length(y), _length(first)):
            rows[-1].append(i)
        else:
            rows.append([i])
    return [i for row in rows for i in sorted(row, key=lambda i: boxes[i][1].start)]
