"""Augmentation against SciPy, NumPy and the statistics of what is drawn."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mnist_jax.data import augment, geometry

OFF = {"rotation": 0.0, "zoom": 0.0, "shift": 0.0, "shear": 0.0, "erase": 0.0, "flip": 0.0}
ALL = {"rotation": 30.0, "zoom": 0.3, "shift": 0.2, "shear": 20.0, "erase": 0.5, "flip": 0.5}
FILLS = ("nearest", "constant")
SCIPY_MODE = {"nearest": "nearest", "constant": "grid-constant"}

few = settings(max_examples=30)
reals = partial(st.floats, width=32, allow_subnormal=False)
pairs = lambda low, high: st.tuples(reals(low, high), reals(low, high))  # noqa: E731
moves = st.builds(
    lambda zoom, shear, rotation, shift: geometry.Affine(*map(f32, (zoom, shear, rotation, shift))),
    pairs(0.5, 2),
    reals(-60, 60),
    reals(-360, 360),
    pairs(-12, 12),
)
resample = jax.jit(geometry.resample, static_argnames="fill")
affine_matrix = jax.jit(geometry.affine_matrix)
BATCH = (8, 28, 21, 2)  # even and odd sides; one shape for most tests, so that few compile


def f32(x):
    return jnp.asarray(x, jnp.float32)


def strength(**config):
    return augment.read_strength(OFF | config)


everything_on = {fill: augment.make_transform(strength(**ALL), fill) for fill in FILLS}
compiled = {fill: jax.jit(transform) for fill, transform in everything_on.items()}


def augment_batch(key, batch, power, *, fill):
    return compiled[fill](key, batch, power)


def images(*shape, seed=0):
    """Bytes over 255, as in training; their differences round, unlike those of uniform draws."""
    return augment.normalize(jax.random.bits(jax.random.key(seed), shape, jnp.uint8))


def scipy_resample(image, matrix, fill):
    linear, offset = np.float64(matrix[:, :2]), np.float64(matrix[:, 2])
    centre = (np.array(image.shape[:2]) - 1) / 2
    channels = [
        ndimage.affine_transform(
            np.float64(image[..., c]),
            linear,
            centre + offset - linear @ centre,
            order=1,
            mode=SCIPY_MODE[fill],
        )
        for c in range(image.shape[2])
    ]
    return np.stack(channels, axis=-1)


def composed_inverse(zoom, shear, rotation, shift):
    """The same map from its parts: homogeneous (y, x) matrices, multiplied and inverted."""
    angle, slant = np.deg2rad(rotation), np.tan(np.deg2rad(shear))
    parts = np.tile(np.eye(3), (4, 1, 1))
    parts[0, :2, 2] = shift
    # Counter-clockwise with y down: what points right comes to point up, that is to smaller y.
    parts[1, :2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    parts[2, 1, 0] = -slant
    parts[3, :2, :2] = np.diag(zoom)
    return np.linalg.inv(np.linalg.multi_dot(parts))[:2]


@pytest.mark.parametrize("fill", FILLS)
@few
@given(moves, st.integers(0, 99))
def test_resample_is_scipy_bilinear(fill, affine, seed):
    image = images(9, 7, 2, seed=seed)
    matrix = affine_matrix(affine)
    ours = resample(image, matrix, fill)
    np.testing.assert_allclose(ours, scipy_resample(image, matrix, fill), atol=2e-5)
    assert ours.min() >= 0
    assert ours.max() <= 1


@few
@given(moves)
def test_matrix_is_the_inverse_of_the_composition(affine):
    expected = composed_inverse(*map(np.float64, affine))
    np.testing.assert_allclose(affine_matrix(affine), expected, atol=1e-4)


@pytest.mark.parametrize("fill", FILLS)
def test_quarter_turn_is_rot90(fill):
    image = images(8, 8, 1)
    matrix = affine_matrix(geometry.Affine(f32([1, 1]), f32(0), f32(90), f32([0, 0])))
    np.testing.assert_allclose(resample(image, matrix, fill), np.rot90(image), atol=1e-5)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize(("down", "right"), [(2, -3), (-1, 4), (0, 1), (7, 0)])
def test_whole_shift_is_roll_with_fill(fill, down, right):
    image = np.asarray(images(6, 9, 2))
    matrix = affine_matrix(geometry.Affine(f32([1, 1]), f32(0), f32(0), f32([down, right])))
    mode = {"nearest": "edge", "constant": "constant"}[fill]
    padded = np.pad(image, ((9, 9), (9, 9), (0, 0)), mode=mode)
    expected = np.roll(padded, (down, right), axis=(0, 1))[9:-9, 9:-9]
    np.testing.assert_array_equal(resample(image, matrix, fill), expected)


def test_zoom_above_one_magnifies_and_axes_are_apart():
    image = jnp.zeros((9, 9, 1)).at[4, 6].set(1.0)  # two pixels to the right of the centre
    matrix = affine_matrix(geometry.Affine(f32([1, 2]), f32(0), f32(0), f32([0, 0])))
    out = resample(image, matrix, "constant")[..., 0]
    assert jnp.unravel_index(out.argmax(), out.shape) == (4, 8)
    assert jnp.count_nonzero(out.sum(axis=1)) == 1


def test_positive_shear_leans_the_top_to_the_right():
    image = jnp.zeros((9, 9, 1)).at[:, 4].set(1.0)
    matrix = affine_matrix(geometry.Affine(f32([1, 1]), f32(45), f32(0), f32([0, 0])))
    out = resample(image, matrix, "constant")[..., 0]
    np.testing.assert_array_equal(out.argmax(axis=1), np.arange(8, -1, -1))


@pytest.mark.parametrize("fill", FILLS)
def test_zero_strengths_return_the_image_exactly(fill):
    batch = images(*BATCH)
    out = augment_batch(jax.random.key(1), batch, strength(), fill=fill)
    np.testing.assert_array_equal(out, batch)


@pytest.mark.parametrize("fill", FILLS)
def test_batch_is_a_loop_over_split_keys(fill):
    batch, key = images(*BATCH), jax.random.key(3)
    power = strength(**ALL)
    one = jax.jit(partial(augment.augment, fill=fill))
    loop = [one(k, x, power) for k, x in zip(jax.random.split(key, len(batch)), batch, strict=True)]
    together = augment_batch(key, batch, power, fill=fill)
    assert together.dtype == jnp.float32
    np.testing.assert_allclose(together, np.stack(loop), atol=1e-6)
    assert together.min() >= 0
    assert together.max() <= 1


def test_keys_decide_everything():
    batch = jnp.broadcast_to(images(*BATCH)[:1], BATCH)
    first, again, other = (
        augment_batch(jax.random.key(i), batch, strength(**ALL), fill="nearest") for i in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    everything = np.concatenate([first, other]).reshape(16, -1)
    assert len(np.unique(everything, axis=0)) == 16  # no two of one image's variants alike


def test_no_key_is_used_twice():
    with jax.debug_key_reuse(True):
        jax.jit(partial(augment.augment, fill="nearest"))(
            jax.random.key(0), images(*BATCH)[0], strength(**ALL)
        )


def test_draws_are_uniform_in_their_ranges_and_independent():
    power = strength(rotation=30.0, zoom=0.2, shift=0.1, shear=15.0)
    draw = partial(geometry.draw_affine, strength=power, height=20, width=40)
    drawn = jax.vmap(draw)(jax.random.split(jax.random.key(0), 20_000))
    columns = [drawn.zoom - 1, drawn.shear[:, None], drawn.rotation[:, None], drawn.shift]
    values = np.concatenate(columns, axis=1)
    limits = np.array([0.2, 0.2, 15, 30, 2, 4])
    unit = values / limits
    assert np.abs(unit).max() <= 1 + 1e-5
    # A uniform in ±1: mean 0, variance 1/3, both ends reached; sampling error is about 0.005.
    np.testing.assert_allclose(unit.mean(axis=0), 0, atol=0.025)
    np.testing.assert_allclose(unit.var(axis=0), 1 / 3, atol=0.02)
    np.testing.assert_array_less(0.99, unit.max(axis=0))
    np.testing.assert_array_less(unit.min(axis=0), -0.99)
    np.testing.assert_allclose(np.corrcoef(unit.T), np.eye(6), atol=0.04)


def rectangles(probability, height=28, width=28, n=4000):
    draw = partial(
        geometry.draw_rectangle, probability=f32(probability), height=height, width=width
    )
    return np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(5), n)))


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_erasing_happens_with_its_probability(probability):
    happened = rectangles(probability).any(axis=(1, 2)).mean()
    assert happened == pytest.approx(probability, abs=0.03 if 0 < probability < 1 else 0)


def test_erased_region_is_one_rectangle_of_the_papers_sizes():
    masks = rectangles(1.0)
    rows, columns = masks.any(axis=2), masks.any(axis=1)
    np.testing.assert_array_equal(masks, rows[:, :, None] & columns[:, None, :])
    for side in (rows, columns):  # one run of pixels: it starts once
        assert (np.diff(side, axis=1, prepend=False) & side).sum(axis=1).tolist() == [1] * 4000
    heights, widths = rows.sum(axis=1), columns.sum(axis=1)
    share = masks.mean(axis=(1, 2))
    # Sides are rounded to whole pixels, by half a pixel each: an area by (h + w) / 2 at most.
    slack = (heights + widths) / 2 / 28**2
    assert ((share > 0.02 - slack) & (share < 0.33 + slack)).all()
    assert share.mean() == pytest.approx(0.175, abs=0.01)
    aspect = np.log(heights / widths)
    assert np.abs(aspect).max() < np.log(1 / 0.3) + 0.35
    assert aspect.mean() == pytest.approx(0, abs=0.05)
    assert masks.any(axis=0).all()  # every pixel has its turn, the corners too


def test_erasing_replaces_the_region_with_noise_and_nothing_else():
    batch = jnp.zeros((500, 28, 28, 1))
    erase = jax.jit(augment.make_transform(strength(erase=1.0), "nearest"))
    out = np.asarray(erase(jax.random.key(0), batch, strength(erase=1.0)))
    noise = out[out != 0]
    assert out.min() >= 0
    assert out.max() <= 1
    assert (out != 0).mean() == pytest.approx(0.175, abs=0.02)
    assert noise.mean() == pytest.approx(0.5, abs=0.01)
    assert noise.var() == pytest.approx(1 / 12, abs=0.005)


def test_flip_mirrors_left_and_right_with_its_probability():
    batch, key = images(2000, 4, 5, 1), jax.random.key(0)
    run = jax.jit(augment.make_transform(strength(flip=1.0), "nearest"))
    mirrored = batch[:, :, ::-1]
    np.testing.assert_array_equal(run(key, batch, strength(flip=1.0)), mirrored)
    out = run(key, batch, strength(flip=0.5))
    flipped = (out == mirrored).all(axis=(1, 2, 3))
    kept = (out == batch).all(axis=(1, 2, 3))
    assert (flipped ^ kept).all()
    assert flipped.mean() == pytest.approx(0.5, abs=0.05)


def test_strengths_never_retrace_and_members_may_differ():
    traces = 0

    @jax.jit
    def run(key, batch, power):
        nonlocal traces
        traces += 1
        return everything_on["nearest"](key, batch, power)

    batch, key = images(4, 8, 8, 1), jax.random.key(0)
    powers = [strength(), strength(rotation=45.0), strength(**ALL)]
    alone = [run(key, batch, power) for power in powers]
    assert traces == 1

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *powers)
    transform = augment.make_transform(stacked, "nearest")
    together = jax.jit(jax.vmap(transform, in_axes=(None, None, 0)))(key, batch, stacked)
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-6)


def test_what_is_off_is_not_compiled_in():
    assert augment.make_transform(strength(), "nearest") is None
    batch, key = images(4, 8, 8, 1), jax.random.key(0)

    def operations(**config):
        power = strength(**config)
        transform = augment.make_transform(power, "nearest")
        return str(jax.make_jaxpr(transform)(key, batch, power))

    for name in ("rotation", "zoom", "shift", "shear"):
        assert "gather" in operations(**{name: 0.1})
    assert "gather" not in operations(erase=0.5, flip=0.5)
    flip, erase, rotation = operations(flip=0.5), operations(erase=0.5), operations(rotation=9.0)
    assert [" rev" in x for x in (flip, erase, rotation)] == [True, False, False]
    assert [" exp" in x for x in (flip, erase, rotation)] == [False, True, False]


def test_draws_of_one_part_do_not_depend_on_the_others():
    batch, key = images(*BATCH), jax.random.key(0)
    power = strength(rotation=30.0)
    alone = jax.jit(augment.make_transform(power, "nearest"))(key, batch, power)
    with_rest = augment_batch(key, batch, power, fill="nearest")
    # Fused in another way, a coordinate (below 28) may differ by its last bit or two, of 2e-6 each.
    np.testing.assert_allclose(alone, with_rest, atol=4e-6)


def test_normalize():
    out = augment.normalize(jnp.arange(256, dtype=jnp.uint8))
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, np.arange(256) / 255, rtol=1e-6)
    assert out[0] == 0
    assert out[255] == 1
