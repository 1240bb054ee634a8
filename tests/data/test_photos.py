"""Pictures: whatever a person draws or photographs becomes what MNIST's makers made."""

import draw_digits
import numpy as np
import prepared
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy import ndimage

from mnist_jax.data import datasets, image_files, ink, photos


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Every hand's ten digits as the net is to see them."""
    folder = tmp_path_factory.mktemp("digits")
    return {
        hand: [mnist(path) for path in draw_digits.save(folder, hand)] for hand in draw_digits.HANDS
    }


@pytest.fixture(scope="module")
def five():
    """A five, 200x200, black on white, in [0, 1]."""
    pen = draw_digits.Pen(width=0.07)
    return 1 - draw_digits.cover(5, np.random.default_rng(0), pen, 200)[..., None]


def mnist(path):
    """The one figure in an image file."""
    (picture,) = image_files.read(path)
    return as_mnist(picture.pixels)


def as_mnist(colours, **options):
    (image,) = photos.as_mnist(colours, **options)
    return image


def unlike(a, b):
    """The mean difference of two images as a share of the light in one."""
    return np.abs(a.astype(float) - b).sum() / max(a.sum(), 1)


def box(image):
    (found,) = ndimage.find_objects((image[..., 0] > 0).astype(int))
    return [edge.stop - edge.start for edge in found]


# --- as MNIST ------------------------------------------------------------------------------------


@pytest.mark.parametrize("hand", draw_digits.HANDS)
def test_every_hand_becomes_like_mnist(digits, hand):
    for image in digits[hand]:
        assert (image.shape, image.dtype) == ((28, 28, 1), np.uint8)
        assert 19 <= max(box(image)) <= 20
        assert image.max() > 200
        assert 0.04 < (image > 127).mean() < 0.35
        centre = ndimage.center_of_mass(image[..., 0])
        assert np.abs(np.array(centre) - 14).max() <= 0.51


def test_the_colours_do_not_matter_nor_the_light(digits):
    """All hands but those of another pen drew the same figure, but for a small wobble."""
    for hand in ("inverted", "coloured", "chalk", "transparent", "16-bit"):
        for pair in zip(digits["plain"], digits[hand], strict=True):
            blurred = [ndimage.gaussian_filter(x[..., 0].astype(float), 1) for x in pair]
            assert np.corrcoef(*(x.ravel() for x in blurred))[0, 1] > 0.85, hand


def test_mnist_comes_back_as_it_is(tmp_path):
    images, _ = prepared.published("mnist", "t10k", 200)
    for image in images:
        np.testing.assert_array_equal(as_mnist(image / 255), image)
        np.testing.assert_array_equal(as_mnist(1 - image / 255), image)
    Image.fromarray(images[0, ..., 0]).save(tmp_path / "x.png")
    np.testing.assert_array_equal(mnist(tmp_path / "x.png"), images[0])
    apart = []
    for image in images[:40]:  # enlarged, on white, off-centre
        large = Image.fromarray(255 - image[..., 0]).resize((140, 140), Image.Resampling.BICUBIC)
        page = np.ones((260, 190, 1))
        page[100:240, 10:150, 0] = np.asarray(large) / 255
        apart.append(unlike(image, as_mnist(page)))
    assert np.mean(apart) < 0.25


def test_scikit_learns_digits_come_back_as_they_are():
    """But for what is so wide in a few of them that it might be a shade."""
    images = datasets.load("digits").test_images[:100]
    apart = [unlike(x, as_mnist(x / 255, by_mass=False)) for x in images]
    assert np.median(apart) == 0
    assert max(apart) < 0.15


@settings(max_examples=25)
@given(
    scale=st.integers(1, 4),
    top=st.integers(0, 200),
    left=st.integers(0, 200),
    light=st.booleans(),
    tone=st.floats(0.15, 1.0),
)
def test_place_size_polarity_and_contrast_do_not_matter(five, scale, top, left, light, tone):
    large = np.kron(five[..., 0], np.ones((scale, scale)))
    page = np.ones((large.shape[0] + 200, large.shape[1] + 200))
    page[top : top + large.shape[0], left : left + large.shape[1]] = large
    page = 1 - tone * (1 - page)
    made = as_mnist((1 - page if light else page)[..., None])
    assert unlike(as_mnist(five), made) < 0.15


@pytest.mark.parametrize("turn", np.linspace(0, 2 * np.pi, 5)[:-1])
def test_a_shade_is_no_ink(five, turn):
    y, x = np.mgrid[-1:1:200j, -1:1:200j]
    across = np.cos(turn) * x + np.sin(turn) * y
    smooth = 0.6 + 0.35 * across / np.abs(across).max()
    edge = np.where(across > 0.4, 0.55, 1.0)  # of a shadow
    for light in (smooth, edge, smooth * edge):
        made = as_mnist(five * light[..., None])
        assert unlike(as_mnist(five), made) < 0.2


def test_dirt_is_no_ink_nor_is_what_reaches_in(five):
    page = five.copy()
    page[:, :9] = 0.2  # the desk
    page[190:193, 100:103] = page[4:7, 150:152] = 0  # crumbs
    noisy = page + np.random.default_rng(0).normal(0, 0.03, page.shape)
    for dirty in (page, np.clip(noisy, 0, 1)):
        assert unlike(as_mnist(five), as_mnist(dirty)) < 0.2


def test_thin_strokes_are_thickened_and_others_are_left(digits):
    def width(image):  # mean, by another rule: the area over half the outline
        light = np.kron(image[..., 0], np.ones((8, 8))) > 127
        outline = light ^ ndimage.binary_erosion(light)
        return 2 * light.sum() / outline.sum() / 8

    for images in zip(digits["thin"], digits["plain"], digits["thick"], strict=True):
        thin, plain, thick = map(width, images)
        assert thin > 0.7 * plain  # drawn with a pen of a seventh
        assert thick > 1.3 * plain  # of twice


@pytest.mark.parametrize("side", [200, 300, 500, 1500])
def test_the_thinnest_pen_is_seen(tmp_path, side):
    """A pixel wide, without grey, which all that makes it smaller makes fainter."""

    def seven(width):
        image = Image.new("L", (side, side), 255)
        corners = [(0.2, 0.15), (0.75, 0.2), (0.35, 0.9)]
        points = [(side * x, side * y) for x, y in corners]
        ImageDraw.Draw(image).line(points, 0, max(1, round(width * side)), "curve")
        image.save(tmp_path / "x.png")
        return mnist(tmp_path / "x.png")

    thin, usual = seven(0), seven(0.06)
    assert thin.max() > 200
    assert unlike(usual, thin) < 0.6
    assert (thin > 127).sum() > 0.5 * (usual > 127).sum()


@given(st.lists(st.integers(0, 255), min_size=2, max_size=40).filter(lambda x: len(set(x)) > 1))
def test_otsus_threshold_parts_best(values):
    """No threshold leaves less variance within the two parts: the criterion's other form."""
    tones = np.array(values) / 255

    def within(threshold):
        parts = tones[tones <= threshold], tones[tones > threshold]
        return sum(len(part) * part.var() for part in parts if len(part))

    best = min(within(t) for t in np.unique(tones)[:-1])
    found = within(ink._otsu(tones[None]))
    assert found <= best + len(tones) * 1.01 / 256  # histogram bins are 1/256 wide


# --- as Fashion-MNIST ----------------------------------------------------------------------------


def test_a_garment_fills_the_frame_and_keeps_its_aspect():
    page = np.ones((300, 500, 3))
    page[60:260, 200:300] = (0.2, 0.4, 0.3)  # twice as high as wide
    made = photos.as_fashion(page)
    assert box(made) == [28, 14]
    assert made[:, 7:21].min() == made[14, 14, 0] == pytest.approx(255 * 0.7, abs=1)
    np.testing.assert_array_equal(photos.as_fashion(1 - page), made)


def test_a_data_sets_own_image_comes_back_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 1))
    image[0] = image[-1] = image[:, 0] = image[:, -1] = 0
    np.testing.assert_array_equal(photos.as_fashion(image / 255), image)
    np.testing.assert_array_equal(photos.as_fashion(1 - image / 255), image)


def test_the_kind_of_images_decides(five):
    digit, in_box, thing = (
        photos.prepare(five, kind, by_mass=by_mass)[0]
        for kind, by_mass in (("digits", True), ("digits", False), ("objects", True))
    )
    assert box(in_box) == box(digit)
    assert not in_box[:4].any()
    assert not in_box[24:].any()
    assert max(box(thing)) == 28


# --- figures -------------------------------------------------------------------------------------


def row_of(digits, gap, rng):
    """Digits side by side, black on white; their middles are `gap` of a height apart."""
    step = round(gap * 140)
    page = np.zeros((280, 280 + step * (len(digits) - 1)))
    for place, digit in enumerate(digits):
        covered = draw_digits.cover(digit, rng, draw_digits.Pen(height=0.5))
        part = page[:, place * step :][:, :280]
        np.maximum(part, covered, out=part)
    return 1 - page[..., None]


@pytest.mark.parametrize("number", ["42", "17", "90538", "11"])
def test_digits_side_by_side_are_figures_from_left_to_right(number):
    found = photos.as_mnist(row_of([int(d) for d in number], 0.8, np.random.default_rng(0)))
    alone = [row_of([int(d)], 0.8, np.random.default_rng(0)) for d in number]
    assert len(found) == len(number)
    for image, page in zip(found, alone, strict=True):
        blurred = [
            ndimage.gaussian_filter(x[..., 0].astype(float), 2) for x in (image, as_mnist(page))
        ]
        assert np.corrcoef(*(x.ravel() for x in blurred))[0, 1] > 0.9


def test_rows_of_figures_are_read_from_the_top():
    page = np.concatenate([row_of(x, 0.8, np.random.default_rng(0)) for x in ([1, 0], [0, 1])])
    heavy = [np.median(np.nonzero(image[..., 0])[1]) for image in photos.as_mnist(page)]
    wide = [box(image)[1] > 11 for image in photos.as_mnist(page)]
    assert wide == [False, True, True, False], heavy


def test_pieces_of_a_figure_stay_together(five):
    """A bar that does not touch, a gap in a stroke, an eight of two rings, dots."""
    broken = five.copy()
    broken[:, 96:99] = 1
    y, x = np.mgrid[0:200, 0:200]
    rings = [np.abs(np.hypot(y - centre, x - 100) - 30) < 5 for centre in (60, 135)]
    dots = five.copy()
    dots[60:75, 150:165] = 0
    bar = 1 - np.zeros((200, 200, 1))
    bar[40:50, 70:130] = bar[56:160, 70:80] = 0
    for page in (broken, 1.0 - (rings[0] | rings[1])[..., None], dots, bar):
        assert len(photos.as_mnist(page)) == 1


def test_real_digits_are_single_figures():
    images, _ = prepared.published("mnist", "t10k", 100)
    counts = []
    for image in images:
        page = np.ones((260, 200, 1))
        large = Image.fromarray(255 - image[..., 0]).resize((140, 140), Image.Resampling.BICUBIC)
        page[60:200, 30:170, 0] = np.asarray(large) / 255
        counts.append(len(photos.as_mnist(page)))
    assert counts.count(1) >= 99


# --- blank ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["digits", "objects"])
@pytest.mark.parametrize("shape", [(200, 300), (28, 31), (1, 1), (1, 50)])
def test_a_blank_picture_has_no_figure(shape, kind):
    for tone in (0, 200, 255):
        with pytest.raises(ValueError, match="nothing stands out"):
            photos.prepare(np.full((*shape, 1), tone / 255), kind)


def test_paper_alone_and_noise_alone_are_blank():
    rng = np.random.default_rng(0)
    shade = np.linspace(0.4, 0.9, 300)[:, None, None] * np.ones((1, 200, 3))
    for page in (shade, shade + rng.normal(0, 0.02, shade.shape), rng.random((200, 200, 1))):
        with pytest.raises(ValueError, match="nothing stands out"):
            as_mnist(np.clip(page, 0, 1))
