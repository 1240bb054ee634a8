"""Pictures: whatever a person draws or photographs becomes what MNIST's makers made."""

import draw_digits
import numpy as np
import prepared
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy import ndimage

from mnist_jax.data import datasets, photos
from mnist_jax.data.photos import PictureError


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
    return photos.prepare(path, "mnist")


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
        np.testing.assert_array_equal(photos.as_mnist(image / 255), image)
        np.testing.assert_array_equal(photos.as_mnist(1 - image / 255), image)
    Image.fromarray(images[0, ..., 0]).save(tmp_path / "x.png")
    np.testing.assert_array_equal(mnist(tmp_path / "x.png"), images[0])
    apart = []
    for image in images[:40]:  # enlarged, on white, off-centre
        large = Image.fromarray(255 - image[..., 0]).resize((140, 140), Image.Resampling.BICUBIC)
        page = np.ones((260, 190, 1))
        page[100:240, 10:150, 0] = np.asarray(large) / 255
        apart.append(unlike(image, photos.as_mnist(page)))
    assert np.mean(apart) < 0.25


def test_scikit_learns_digits_come_back_as_they_are():
    """But for what is so wide in a few of them that it might be a shade."""
    images = datasets.load("digits").test_images[:100]
    apart = [unlike(x, photos.as_mnist(x / 255, by_mass=False)) for x in images]
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
    made = photos.as_mnist((1 - page if light else page)[..., None])
    assert unlike(photos.as_mnist(five), made) < 0.15


@pytest.mark.parametrize("turn", np.linspace(0, 2 * np.pi, 5)[:-1])
def test_a_shade_is_no_ink(five, turn):
    y, x = np.mgrid[-1:1:200j, -1:1:200j]
    across = np.cos(turn) * x + np.sin(turn) * y
    smooth = 0.6 + 0.35 * across / np.abs(across).max()
    edge = np.where(across > 0.4, 0.55, 1.0)  # of a shadow
    for light in (smooth, edge, smooth * edge):
        made = photos.as_mnist(five * light[..., None])
        assert unlike(photos.as_mnist(five), made) < 0.2


def test_dirt_is_no_ink_nor_is_what_reaches_in(five):
    page = five.copy()
    page[:, :9] = 0.2  # the desk
    page[190:193, 100:103] = page[4:7, 150:152] = 0  # crumbs
    noisy = page + np.random.default_rng(0).normal(0, 0.03, page.shape)
    for dirty in (page, np.clip(noisy, 0, 1)):
        assert unlike(photos.as_mnist(five), photos.as_mnist(dirty)) < 0.2


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
    found = within(photos._otsu(tones[None]))
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


def test_the_data_set_decides(tmp_path, five):
    Image.fromarray(np.uint8(255 * five[..., 0])).save(tmp_path / "5.png")
    digit, of_csv, in_box, thing = (
        photos.prepare(tmp_path / "5.png", name)
        for name in ("mnist", "csv:/x/train.csv", "digits", "fashion_mnist")
    )
    np.testing.assert_array_equal(digit, of_csv)
    assert box(in_box) == box(digit)
    assert not in_box[:4].any()
    assert not in_box[24:].any()
    assert max(box(thing)) == 28


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "end"),
    [
        *(("1", "png"), ("L", "bmp"), ("P", "gif"), ("RGB", "webp"), ("RGBA", "tiff")),
        *(("CMYK", "jpg"), ("LA", "png"), ("I;16", "png"), ("I", "tiff"), ("F", "tiff")),
    ],
)
def test_whatever_pillow_reads(tmp_path, five, mode, end):
    grey = Image.fromarray(np.uint8(255 * five[..., 0]))
    kinds = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
    if mode in kinds:
        top = {"I;16": 65535, "I": 255, "F": 1}[mode]
        image = Image.fromarray((five[..., 0] * top).astype(kinds[mode]))
    else:
        image = grey.convert(mode)
    image.save(tmp_path / f"x.{end}")
    assert unlike(photos.as_mnist(five), mnist(tmp_path / f"x.{end}")) < 0.1


def test_transparency(tmp_path, five):
    """Ink on nothing, dark or light; a card with round corners; a colour that is called none."""
    ink = Image.fromarray(np.uint8(255 * (1 - five[..., 0])))
    for tone in (20, 240):
        image = Image.new("RGBA", ink.size, (tone, tone, tone, 0))
        image.putalpha(ink)
        image.save(tmp_path / f"{tone}.png")
    card = Image.fromarray(np.uint8(255 * five[..., 0])).convert("RGBA")
    corners = Image.new("L", ink.size)
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, 199, 199), 40, fill=255)
    card.putalpha(corners)
    card.save(tmp_path / "card.png")
    palette = Image.fromarray(np.uint8(255 * (five[..., 0] > 0.5))).convert("P")
    palette.save(tmp_path / "none.png", transparency=palette.getpixel((0, 0)))
    for name in ("20", "240", "card", "none"):
        assert unlike(photos.as_mnist(five), mnist(tmp_path / f"{name}.png")) < 0.15, name


def test_a_photograph_is_turned_upright(tmp_path, five):
    image = Image.fromarray(np.uint8(255 * five[..., 0]))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "x.jpg", exif=exif, quality=95)
    assert unlike(photos.as_mnist(five), mnist(tmp_path / "x.jpg")) < 0.1


def test_a_large_picture_is_looked_at_reduced(tmp_path, five):
    large = Image.fromarray(np.uint8(255 * five[..., 0])).resize((3000, 2000))
    for name in ("x.jpg", "x.png"):
        large.save(tmp_path / name)
        assert max(photos.read(tmp_path / name).shape) <= 512
    seen = Image.new("RGBA", large.size, (20, 40, 90, 0))
    seen.putalpha(large.point(lambda tone: 255 - tone))
    seen.save(tmp_path / "x.png")
    assert unlike(mnist(tmp_path / "x.jpg"), mnist(tmp_path / "x.png")) < 0.1


def test_a_picture_of_a_hundred_megapixels_is_no_warning(tmp_path, five, monkeypatch):
    """Of which Pillow warns: somebody might mean harm. Here warnings are errors."""
    Image.fromarray(np.uint8(255 * five[..., 0])).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200 * 200 - 1)
    assert unlike(photos.as_mnist(five), mnist(tmp_path / "x.png")) == 0


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("shape", [(200, 300), (28, 31), (1, 1), (1, 50)])
def test_a_blank_picture_is_named(tmp_path, shape, dataset):
    for tone in (0, 200, 255):
        Image.new("L", shape, tone).save(tmp_path / "blank.png")
        with pytest.raises(PictureError, match=r"blank\.png: nothing stands out"):
            photos.prepare(tmp_path / "blank.png", dataset)


def test_paper_alone_and_noise_alone_are_blank():
    rng = np.random.default_rng(0)
    shade = np.linspace(0.4, 0.9, 300)[:, None, None] * np.ones((1, 200, 3))
    for page in (shade, shade + rng.normal(0, 0.02, shade.shape), rng.random((200, 200, 1))):
        with pytest.raises(ValueError, match="nothing stands out"):
            photos.as_mnist(np.clip(page, 0, 1))


def test_a_file_that_is_no_picture_is_named(tmp_path, five):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    Image.fromarray(np.uint8(255 * five[..., 0])).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "folder.png").mkdir()
    for name, why in {
        "text.png": "is no picture that Pillow knows",
        "empty.png": "is no picture that Pillow knows",
        "half.png": "cannot be read (",
        "folder.png": "cannot be read (Is a directory)",
        "missing.png": "cannot be read (No such file or directory)",
    }.items():
        with pytest.raises(PictureError) as caught:
            mnist(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: {why}")
        assert "\n" not in str(caught.value)
