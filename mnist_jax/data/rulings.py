"""Lines printed on paper: thin, straight, and across nearly all of the picture."""

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

_SLOPES = np.linspace(-0.12, 0.12, 11)  # height per width
_RUN = 0.12  # of the width: a line is a chain of straight runs as long as that
_ACROSS = 0.7  # of the width that a line reaches across
_FEWEST = 3  # parallel lines: figures that fill the picture have one or two
_THICK = 2.5  # times a line's thickness: strokes that cross it are left


def find(ink: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Return where lines are, horizontal or vertical within 7 degrees, except under strokes."""
    pieces, _ = ndimage.label(ink, np.ones((3, 3)))
    boxes = ndimage.find_objects(pieces)
    found = np.zeros_like(ink)
    for axis, lines in ((1, found), (0, found.T)):
        side = ink.shape[axis]
        if any(box[axis].stop - box[axis].start > _ACROSS * side for box in boxes):
            lines |= _horizontal(ink if axis else np.ascontiguousarray(ink.T))
    return found


def _horizontal(ink: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    height, width = ink.shape
    columns, length = np.arange(width), max(3, round(_RUN * width))
    rows = width * np.arange(height)[:, None]  # places of the first pixels
    runs = np.zeros_like(ink)
    for slope in _SLOPES:
        shift = width * np.rint(slope * (columns - width / 2)).astype(int)
        sheared = ink.take(rows + (columns + shift), mode="wrap")
        eroded = ndimage.minimum_filter1d(sheared, length, axis=1)
        # An even filter's middle is off by one: mirror it.
        origin = -1 if length % 2 == 0 else 0
        opened = ndimage.maximum_filter1d(eroded, length, axis=1, origin=origin)
        runs |= opened.take(rows + (columns - shift), mode="wrap")
    pieces, _ = ndimage.label(runs, np.ones((3, 3)))
    boxes = enumerate(ndimage.find_objects(pieces), 1)
    lines = np.isin(pieces, [i for i, (_, x) in boxes if x.stop - x.start > _ACROSS * width])
    tops = lines & ~np.roll(lines, 1, axis=0)
    if tops.sum() < _FEWEST * _ACROSS * width:
        return np.zeros_like(ink)
    thickness = 1 + 2 * round(_THICK * lines.sum() / tops.sum() / 2)
    eroded = ndimage.minimum_filter1d(ink, thickness, axis=0)
    return lines & ~ndimage.maximum_filter1d(eroded, thickness, axis=0)
