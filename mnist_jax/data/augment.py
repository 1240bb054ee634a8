"""Augmentation on the device: pure functions `(key, image) -> image`.

However many geometric transforms are composed, an image is resampled once. The strengths are traced
values: changing them never recompiles, and trials of one program may differ. Which transforms are
compiled in is static, so what is off costs nothing:

    strength = read_strength(config)          # {rotation: 10.0, zoom: 0.1, ..., flip: 0.0}
    transform = make_transform(strength, fill="nearest")  # None when everything is off
    images = transform(key, images, strength)

Adding one takes a field of `Strength` and its lines in `augment`. JAX is imported inside functions,
so that reading flags stays fast.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float32, UInt8

from mnist_jax.types import Array, Option

Fill = Literal["nearest", "constant"]


class Strength(NamedTuple):
    """Strength of each augmentation, 0 for off; the leaves may have a leading axis of trials.

    The fields are keys of `config.train.augment`, with the options that annotate them.
    """

    rotation: Annotated[Array, Option(0.0, "degrees, uniform in ±", "[0, inf)")]
    zoom: Annotated[Array, Option(0.0, "each axis, uniform in 1 ±", "[0, 1)")]
    shift: Annotated[Array, Option(0.0, "fraction of the side, uniform in ±", "[0, inf)")]
    shear: Annotated[Array, Option(0.0, "degrees, uniform in ±", "[0, 90)")]
    erase: Annotated[Array, Option(0.0, "probability of erasing a rectangle", "[0, 1]")]
    flip: Annotated[Array, Option(0.0, "probability of mirroring left and right", "[0, 1]")]


_ALL = frozenset(Strength._fields)
_AFFINE = frozenset({"rotation", "zoom", "shift", "shear"})
OPTIONS: dict[str, Option] = {
    **{name: hint.__metadata__[0] for name, hint in Strength.__annotations__.items()},
    "fill": Option(
        "nearest", "outside the image: its nearest pixel, or 0", get_args(Fill), optional=True
    ),
}

# Values of `config.train.augment`; what a preset leaves out is 0.
PRESETS: dict[str, dict[str, float]] = {
    "none": {},
    "mild": {"rotation": 10.0, "zoom": 0.1, "shift": 0.1},
    "strong": {"rotation": 20.0, "zoom": 0.2, "shift": 0.2, "shear": 10.0, "erase": 0.25},
}

Images = Float32[Array, "b h w c"]
Transform = Callable[[Array, Images, Strength], Images]


def read_strength(config: Any) -> Strength:
    """Return the strengths in `config.train.augment`."""
    import jax.numpy as jnp

    return Strength(*(jnp.asarray(config[name], jnp.float32) for name in Strength._fields))


def read_fill(config: Any) -> Fill:
    """Return the fill in `config.train.augment`, or its default."""
    return config["fill"] or OPTIONS["fill"].default


def unused(config: Any) -> dict[str, str]:
    """Return the keys that are set without effect, and why."""
    if config["fill"] is None or any(config[name] for name in _AFFINE):
        return {}
    listed = ", ".join(f"config.train.augment.{name}" for name in sorted(_AFFINE))
    return {"fill": f"nothing moves the image; give one of {listed}"}


def make_transform(strength: Strength, fill: Fill) -> Transform | None:
    """Return the function `(key, images, strength) -> images` with only the parts that are on.

    Args:
      strength: concrete values, not traced; a part is on if it is on in any trial.
      fill: what lies outside the image, see `geometry.resample`.

    Returns:
      `augment_batch` with its static arguments bound; None when everything is off.
    """
    on = frozenset(name for name, value in strength._asdict().items() if np.any(value))
    return partial(augment_batch, fill=fill, on=on) if on else None


def normalize(images: UInt8[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """Map bytes to [0, 1]: x / 255."""
    return images.astype(np.float32) / 255


def augment_batch(
    key: Array, images: Images, strength: Strength, *, fill: Fill, on: frozenset[str] = _ALL
) -> Images:
    """Apply `augment` to each image of a batch, with a key of its own."""
    import jax

    each = jax.vmap(partial(augment, fill=fill, on=on), in_axes=(0, 0, None))
    return each(jax.random.split(key, len(images)), images, strength)


def augment(
    key: Array,
    image: Float32[Array, "h w c"],
    strength: Strength,
    *,
    fill: Fill,
    on: frozenset[str] = _ALL,
) -> Float32[Array, "h w c"]:
    """Mirror, move and erase one image at random.

    Args:
      key: consumed; the draws of one part do not depend on which others are on.
      image: values in [0, 1]; they stay there. At least 2x2.
      strength: scalars. With all of them 0 the image is returned exactly.
      fill: what lies outside the image, see `geometry.resample`.
      on: the fields of `Strength` that are compiled in; one of `_AFFINE` brings the others.

    Returns:
      The image, of the same shape.
    """
    import jax
    import jax.numpy as jnp

    from mnist_jax.data import geometry

    height, width, _ = image.shape
    affine_key, mask_key, noise_key, flip_key = jax.random.split(key, 4)
    if "flip" in on:
        mirrored = jax.random.bernoulli(flip_key, strength.flip)
        image = jnp.where(mirrored, image[:, ::-1], image)
    if on & _AFFINE:
        moves = geometry.draw_affine(affine_key, strength, height, width)
        image = geometry.resample(image, geometry.affine_matrix(moves), fill)
    if "erase" in on:
        # Noise, each pixel on its own: the fill that the paper chose of the four it compared.
        noise = jax.random.uniform(noise_key, image.shape, jnp.float32)
        mask = geometry.draw_rectangle(mask_key, strength.erase, height, width)
        image = jnp.where(mask[..., None], noise, image)
    return image
