"""Image files: the same pixels whatever the format, and a line on each that cannot be read."""

import os
import struct
import zlib

import draw_digits
import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageDraw

from mnist_jax.data import image_files, photos
from mnist_jax.data.image_files import PictureError


@pytest.fixture(scope="module")
def five():
    """A five, 200x200, black on white, in [0, 1]."""
    pen = draw_digits.Pen(width=0.07)
    return 1 - draw_digits.cover(5, np.random.default_rng(0), pen, 200)


@pytest.fixture(scope="module")
def grey(five):
    return Image.fromarray(np.uint8(255 * five))


def read(path):
    """The grey pixels of the one page in a file."""
    (picture,) = image_files.read(path)
    assert picture.name == str(path)
    return picture.pixels.mean(axis=-1)


def apart(path, pixels):
    return np.abs(read(path) - pixels).mean()


def messages(path):
    """The names of the pages that can be read, and the error after them."""
    names = []
    with pytest.raises(PictureError) as caught:
        names.extend(picture.name for picture in image_files.read(path))
    assert "\n" not in str(caught.value)
    return names, str(caught.value)


def write_rgb_16(path, pixels):
    """A PNG of 16 bits a channel, which Pillow reads but does not write."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    height, width = pixels.shape
    rows = np.repeat(pixels[..., None], 3, axis=2).astype(">u2").reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


# --- pixels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "end"),
    [
        *(("1", "png"), ("1", "tiff"), ("L", "bmp"), ("P", "gif"), ("RGB", "webp"), ("RGB", "jp2")),
        *(("RGBA", "tiff"), ("CMYK", "jpg"), ("CMYK", "tiff"), ("LA", "png"), ("LAB", "tiff")),
        *(("YCbCr", "jpg"), ("RGB", "avif"), ("L", "pgm"), ("1", "pbm")),
    ],
)
def test_the_mode_and_the_format_do_not_matter(tmp_path, five, grey, mode, end):
    image = Image.merge("LAB", [grey, *2 * [Image.new("L", grey.size)]]) if mode == "LAB" else None
    (image or grey.convert(mode)).save(tmp_path / f"x.{end}")
    assert apart(tmp_path / f"x.{end}", five) < 0.02


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_a_16_bit_file_may_have_fewer_bits(tmp_path, five, bits):
    values = np.uint16((2**bits - 1) * five)
    Image.fromarray(values).save(tmp_path / "x.png")
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "x.tiff")
    assert apart(tmp_path / "x.png", five) < 0.005
    assert apart(tmp_path / "x.tiff", five) < 0.005
    if bits >= 12:  # Pillow keeps 8 of 16
        write_rgb_16(tmp_path / "rgb.png", values)
        (picture,) = image_files.read(tmp_path / "rgb.png")
        for kind in ("digits", "objects"):
            image, expected = (photos.prepare(x, kind) for x in (picture.pixels, five[..., None]))
            assert np.abs(image / 255 - expected / 255).mean() < 0.05


@pytest.mark.parametrize("low", [-32768, -100, 0])
def test_signed_numbers(tmp_path, five, low):
    top = 32767 if low else 65535
    Image.fromarray(np.int32(low + (top - low) * five)).save(tmp_path / "x.tiff")
    assert apart(tmp_path / "x.tiff", five) < 0.005


@pytest.mark.parametrize("white", [0.1, 1, 255, 65535])
def test_floating_point_numbers(tmp_path, five, white):
    Image.fromarray(np.float32(white * five)).save(tmp_path / "x.tiff")
    assert apart(tmp_path / "x.tiff", min(white, 1) * five) < 0.005


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_paper_or_ink(tmp_path, five, value):
    pixels = np.float32(five)
    pixels[:20, :20] = value
    Image.fromarray(pixels).save(tmp_path / "x.tiff")
    expected = five.copy()
    expected[:20, :20] = 0 if value == -np.inf else 1
    assert apart(tmp_path / "x.tiff", expected) < 0.005
    Image.fromarray(np.full_like(pixels, value)).save(tmp_path / "x.tiff")
    assert np.ptp(read(tmp_path / "x.tiff")) == 0


@pytest.mark.parametrize("opacity", [0.2, 0.45, 1])
@pytest.mark.parametrize("tone", [20, 240])
def test_ink_on_nothing_gets_paper_of_the_other_tone(tmp_path, five, opacity, tone):
    image = Image.new("RGBA", (200, 200), (tone, tone, tone, 0))
    image.putalpha(Image.fromarray(np.uint8(255 * opacity * (1 - five))))
    image.save(tmp_path / "x.png")
    expected = five if tone < 128 else 1 - five
    assert apart(tmp_path / "x.png", expected) < 0.03


def test_transparent_parts_of_a_picture_get_its_colour(tmp_path, five, grey):
    card = grey.convert("RGBA")
    corners = Image.new("L", grey.size)
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, 199, 199), 40, fill=255)
    card.putalpha(corners)
    card.save(tmp_path / "x.png")
    assert apart(tmp_path / "x.png", five) < 0.01
    palette = Image.fromarray(np.uint8(255 * (five > 0.5))).convert("P")
    palette.save(tmp_path / "x.png", transparency=palette.getpixel((0, 0)))
    assert apart(tmp_path / "x.png", five) < 0.03
    Image.new("RGBA", (9, 9), (255, 0, 0, 0)).save(tmp_path / "x.png")
    assert np.ptp(read(tmp_path / "x.png")) == 0


def test_a_photograph_is_turned_upright(tmp_path, five, grey):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise
    grey.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "x.jpg", exif=exif, quality=95)
    assert apart(tmp_path / "x.jpg", five) < 0.01


def test_a_large_picture_is_reduced(tmp_path, five, grey):
    for name in ("x.jpg", "x.png"):
        grey.resize((3000, 2000)).save(tmp_path / name)
        pixels = read(tmp_path / name)
        assert max(pixels.shape) <= 512
        expected = grey.resize(pixels.shape[::-1])
        assert np.abs(pixels - np.asarray(expected) / 255).mean() < 0.02


# --- pages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["tif", "gif", "webp", "png"])
def test_every_page_of_a_file_is_read(tmp_path, five, grey, end):
    pages = [grey, grey.transpose(Image.Transpose.ROTATE_90), grey.point(lambda tone: 255 - tone)]
    path = tmp_path / f"x.{end}"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    pictures = list(image_files.read(path))
    assert [p.name for p in pictures] == [f"{path}[{i}]" for i in (1, 2, 3)]
    for picture, page in zip(pictures, pages, strict=True):
        assert np.abs(picture.pixels.mean(axis=-1) - np.asarray(page) / 255).mean() < 0.02


def test_reductions_of_a_page_and_second_photographs_are_no_pages(tmp_path, grey):
    small = grey.reduce(4)
    small.encoderinfo = {"tiffinfo": {254: 1}}
    grey.save(tmp_path / "x.tif", save_all=True, append_images=[small])
    (page,) = image_files.read(tmp_path / "x.tif")
    assert page.name.endswith("x.tif[1]")
    grey.save(tmp_path / "x.mpo", save_all=True, append_images=[grey])
    (tmp_path / "x.mpo").rename(tmp_path / "x.jpg")
    assert len(list(image_files.read(tmp_path / "x.jpg"))) == 1


def test_a_damaged_page_is_named_after_those_before_it(tmp_path, grey):
    grey.save(tmp_path / "x.gif", save_all=True, append_images=[grey.rotate(i) for i in (30, 60)])
    whole = (tmp_path / "x.gif").read_bytes()
    (tmp_path / "x.gif").write_bytes(whole[: len(whole) - 1500])
    names, error = messages(tmp_path / "x.gif")
    assert names
    assert f"x.gif[{len(names) + 1}]: cannot be read (" in error


# --- what cannot be read -------------------------------------------------------------------------


def test_pictures_of_a_hundred_megapixels_are_read_and_larger_ones_are_named(
    tmp_path, five, grey, monkeypatch
):
    """Pillow warns above MAX_IMAGE_PIXELS and refuses twice that. Warnings are errors."""
    grey.save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200 * 200 - 1)
    assert apart(tmp_path / "x.png", five) < 0.01
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200 * 200 // 3)
    assert (
        "x.png: cannot be read (Image size (40000 pixels) exceeds"
        in messages(tmp_path / "x.png")[1]
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
        b"%PDF-1.4\n",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    ],
)
def test_content_of_other_formats_is_not_opened(tmp_path, monkeypatch, content):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args: pytest.fail("was started"))
    (tmp_path / "x.png").write_bytes(content)
    names, error = messages(tmp_path / "x.png")
    assert not names
    assert error.startswith(f"{tmp_path}/x.png: ")
    if b"heic" not in content:
        assert "is not an image in a supported format (PNG, JPEG, " in error


@pytest.mark.parametrize("end", ["png", "jpg", "gif", "webp", "tif", "bmp", "avif"])
def test_truncated_files_are_named(tmp_path, grey, end):
    path = tmp_path / f"x.{end}"
    grey.convert("RGB").save(path)
    whole = path.read_bytes()
    for part in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(part * len(whole))])
        try:
            pictures = list(image_files.read(path))
        except PictureError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
        else:
            assert len(pictures) == 1  # a decoder may do without the rest


def test_what_is_no_regular_file_is_named(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in {
        "folder.png": "Is a directory",
        "missing.png": "No such file or directory",
        "folder.png/x.png": "No such file or directory",
        "loop.png": "Too many levels of symbolic links",
        "pipe.png": "it is a device or a pipe",
    }.items():
        path = tmp_path / name
        assert messages(path) == ([], f"{path}: cannot be read ({reason})")


def test_names_of_files_are_printable(tmp_path, grey):
    path = tmp_path / "\x1b[31m\n\u202e.png"
    grey.save(path)
    (picture,) = image_files.read(path)
    assert picture.name == f"{tmp_path}/\ufffd[31m\ufffd\ufffd.png"
    path.write_bytes(b"")
    assert messages(path)[1].startswith(f"{picture.name}: is not")
