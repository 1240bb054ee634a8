"""The sheet of paper in a photograph of a table: a bright quadrilateral."""

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from scipy import ndimage, spatial

_COARSE = 128  # pixels of a side on which a sheet is sought
_ROUND = ndimage.iterate_structure(ndimage.generate_binary_structure(2, 1), 2)  # 5 pixels wide
_SMALLEST = 0.08  # of the picture's area
_FILLED = 0.7  # of a sheet's area is bright; the rest is ink
_STRAIGHT = 0.88  # of a sheet's convex hull: a quadrilateral fills it, and so does the sheet
_NEAR = 4  # pixels from the border: the corners of an opened area are cut off
_CUT = 0.5  # of the outline, at most, lies along the border of the picture
_EDGE = 1.12  # the sheet is brighter by this factor than what surrounds it ...
_CLEAR = 0.85  # ... along this share of the outline
_MARGIN = 0.03  # of the sheet's sides, cut off: edges and the shadows at them


def find(colours: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "_ _ c"] | None:
    """Return the largest sheet of paper in a picture, upright and without perspective, or None."""
    grey = colours.mean(axis=-1)
    factor = -(-max(grey.shape) // _COARSE)
    coarse = np.asarray(Image.fromarray(grey.astype(np.float32)).reduce(factor), np.float64)
    found, largest = None, 0
    # Without what is narrow and bright: the same as to open the area above each threshold.
    opened = ndimage.grey_opening(coarse, footprint=_ROUND, mode="constant", cval=-np.inf)
    for threshold in np.quantile(coarse, np.linspace(0.05, 0.95, 13)):
        pieces, _ = ndimage.label(opened > threshold)
        sizes = np.bincount(pieces.ravel())
        for piece in 1 + np.flatnonzero(sizes[1:] > _SMALLEST * coarse.size):
            area = ndimage.binary_fill_holes(pieces == piece)
            if area.sum() <= largest or sizes[piece] < _FILLED * area.sum():
                continue
            corners = _corners(area)
            if corners is None or not _is_inside(corners, coarse.shape[::-1]):
                continue
            if _stands_out(coarse, area):
                found, largest = factor * corners, area.sum()
    return None if found is None else _straighten(colours, found)


def _corners(area: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "4 2"] | None:
    """Return an area's corners (x, y), clockwise from top left, or None: no quadrilateral.

    The largest quadrilateral in the convex hull consists of two triangles on a diagonal.
    """
    outline = np.argwhere(area & ~ndimage.binary_erosion(area))[:, None, ::-1]
    hull = spatial.ConvexHull((outline + np.array([(0, 0), (0, 1), (1, 0), (1, 1)])).reshape(-1, 2))
    if area.sum() < _STRAIGHT * hull.volume:
        return None
    points = hull.points[hull.vertices]
    x, y = np.moveaxis(points[None] - points[:, None], -1, 0)
    twice = x[:, :, None] * y[:, None] - y[:, :, None] * x[:, None]  # of triangle i, j, k
    sizes = (twice.max(axis=2) - twice.min(axis=2)) / 2
    i, j = np.unravel_index(sizes.argmax(), sizes.shape)
    if sizes[i, j] < _STRAIGHT * hull.volume:
        return None
    corners = points[[i, twice[i, j].argmin(), j, twice[i, j].argmax()]]
    return np.roll(corners, -corners.sum(axis=1).argmin(), axis=0)


def _is_inside(corners: Float[np.ndarray, "4 2"], size: tuple[int, int]) -> bool:
    """Return whether at least half of the outline is not along the picture's border."""
    near = np.abs(corners[:, None] - np.array([(0, 0), size])) < _NEAR
    along = (near & np.roll(near, -1, axis=0)).any(axis=(1, 2))
    lengths = np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=1)
    return bool(lengths[along].sum() < _CUT * lengths.sum())


def _stands_out(grey: Float[np.ndarray, "h w"], area: Bool[np.ndarray, "h w"]) -> bool:
    """Return whether nearly all of an area's outline in the picture is an edge."""
    inner = ndimage.binary_erosion(area, iterations=2, border_value=1)
    y, x = ndimage.distance_transform_edt(~inner, return_distances=False, return_indices=True)
    near, far = (ndimage.binary_dilation(area, iterations=n) for n in (1, 3))
    around = far & ~near
    return bool((grey[y, x] > _EDGE * grey)[around].mean() > _CLEAR)


def _straighten(
    colours: Float[np.ndarray, "h w c"], corners: Float[np.ndarray, "4 2"]
) -> Float[np.ndarray, "_ _ c"]:
    """Return what is between four corners as a rectangle."""
    top, right, bottom, left = np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=1)
    width, height = max(1, round((top + bottom) / 2)), max(1, round((left + right) / 2))
    middle = corners.mean(axis=0)
    corners = middle + (1 - 2 * _MARGIN) * (corners - middle)
    # The projective map from the rectangle to the picture, in Pillow's eight numbers.
    places = np.array([(0, 0), (width, 0), (width, height), (0, height)])
    rows = [
        row
        for (u, v), (x, y) in zip(places, corners, strict=True)
        for row in ([u, v, 1, 0, 0, 0, -u * x, -v * x], [0, 0, 0, u, v, 1, -u * y, -v * y])
    ]
    numbers = np.linalg.solve(np.array(rows), corners.ravel()).tolist()
    kind = Image.Transform.PERSPECTIVE, numbers, Image.Resampling.BILINEAR
    channels = [Image.fromarray(c.astype(np.float32)) for c in np.moveaxis(colours, -1, 0)]
    straight = [np.asarray(c.transform((width, height), *kind), np.float64) for c in channels]
    return np.stack(straight, axis=-1)
