"""A trained net as a function: images in, probabilities out; and what noise does to its answers.

Only `before_and_after` needs the data set.
"""

import functools
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from mnist_jax import tasks
from mnist_jax.analysis import ensemble
from mnist_jax.data import image_files, photos, splits
from mnist_jax.data.image_files import Picture, PictureError
from mnist_jax.report import pictures
from mnist_jax.runs import restore
from mnist_jax.runtime import xla
from mnist_jax.runtime.progress import Log
from mnist_jax.train import evaluate
from mnist_jax.types import UserError, printable
from mnist_jax.workdir import files

Images = UInt8[np.ndarray, "n 28 28 1"]
AnyImages = UInt8[np.ndarray, "n 28 28 *grey"]
Image = UInt8[np.ndarray, "28 28 1"]
Scores = Float32[np.ndarray, "trials n classes"]
_NEIGHBOUR = 10  # the tenth nearest test image says how familiar an image is
_STRANGE = 0.01  # of the test images are called strange
_SAMPLE = 2000  # test images that tell where that begins


class Answer(NamedTuple):
    """The output of a classifier."""

    probabilities: Float32[np.ndarray, "n classes"]
    strange: Bool[np.ndarray, " n"]  # it looks like nothing that the net was trained on


class Classifier(NamedTuple):
    """A net, or the ensemble of several trials, whose mean probability counts."""

    model: str
    dataset: str  # that it was trained on
    image_kind: photos.Kind  # of its images
    class_names: tuple[str, ...]
    scores: Callable[[Images], Scores]
    known: Float32[np.ndarray, "trials test classes"]  # the scores of the test images
    familiar: float  # the least familiarity of what is not strange

    def __call__(self, images: AnyImages) -> Float32[np.ndarray, "n classes"]:
        """Return the probability of each class.

        Args:
          images: light on black, as in the data set; the last axis may be left out.

        Raises:
          ValueError: they have another shape or type.
        """
        return self.answer(images).probabilities

    def answer(self, images: AnyImages) -> Answer:
        """Return the images' probabilities and which images are strange: see `familiarity`."""
        if images.dtype != np.uint8 or images.shape[1:] not in ((28, 28), (28, 28, 1)):
            given = f"{images.dtype}{list(images.shape)}"
            raise ValueError(f"images: {given}: give uint8, n x 28 x 28 x 1")
        scores = self.scores(images.reshape(-1, 28, 28, 1))
        believed = ensemble.probabilities(scores.astype(np.float64)).astype(np.float32)
        return Answer(believed, familiarity(scores, self.known) < self.familiar)

    def prepare(self, picture: Picture) -> list[tuple[str, Image]]:
        """Convert a picture into images in the style of the data set, see `photos.prepare`.

        Returns:
          The name and image of each figure, row by row from left to right.

        Raises:
          PictureError: nothing stands out from the background.
        """
        by_mass = self.dataset != "digits"
        try:
            images = photos.prepare(picture.pixels, self.image_kind, by_mass=by_mass)
        except ValueError as error:
            raise PictureError(f"{picture.name}: {error}") from error
        if len(images) == 1:
            return [(picture.name, images[0])]
        count = len(images)
        return [(f"{picture.name} (figure {i} of {count})", x) for i, x in enumerate(images, 1)]

    def read(self, path: str | Path) -> Image:
        """Read a file with one figure as an image in the style of the data set.

        Raises:
          PictureError: the file cannot be read, is blank, or has several figures or pages.
        """
        pictures = list(image_files.read(Path(path)))
        figures = [figure for picture in pictures for figure in self.prepare(picture)]
        if len(figures) != 1:
            raise PictureError(
                f"{printable(str(path))}: has {len(figures)} figures on {len(pictures)} pages; "
                "use image_files.read and prepare, or crop it to one figure"
            )
        return figures[0][1]


def load(workdir: str | Path, log: Log = warnings.warn) -> Classifier:
    """Load the classifier that a finished run tested.

    With several trials, load the ensemble of the trials that were evaluated on the test split.

    Args:
      workdir: of the run.
      log: prints warnings of damaged checkpoints.

    Raises:
      UserError: there is no finished run, its checkpoints are gone, or it does not give
        probabilities of classes.
    """
    workdir = Path(workdir)
    config, _ = files.read_config(workdir)
    summary = files.read_summary(workdir)
    task = tasks.build(config.task, len(summary["class_names"]))
    if not task.probable:
        raise UserError(
            f"{workdir}: the scores of its task ('{config.task.name}' with the loss "
            f"'{tasks.loss(config.task)}') are not class probabilities; take another run"
        )
    sizes = len(summary["class_names"]), summary["num_train"]
    restored = restore.best(workdir, config, sizes, summary.get("chosen", 0), log)
    model, nets = restored.recipe.model, restored.nets

    @functools.cache
    def program(size: int) -> Callable:
        if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
            return functools.partial(evaluate.predict, model)
        images = jax.ShapeDtypeStruct((size, 28, 28, 1), jnp.uint8)
        lowered = evaluate.predict.lower(model, nets[0], images)
        return xla.compile_lowered(lowered, predicts=True)

    def scores(images: Images) -> Scores:
        # Up to a power of two, because each number of images compiles a program of its own.
        size = 1 << max(len(images) - 1, 0).bit_length()
        padded = jnp.pad(images, ((0, size - len(images)), (0, 0), (0, 0), (0, 0)))
        outputs = jnp.stack([program(size)(net, padded) for net in nets])
        return jax.device_get(task.scores(outputs))[:, : len(images)]

    known = _test_scores(workdir)
    sample = familiarity(known[:, :_SAMPLE], known)
    return Classifier(
        model=summary["model"],
        dataset=summary["dataset"],
        image_kind=summary.get("image_kind") or _image_kind(summary["dataset"]),
        class_names=tuple(summary["class_names"]),
        scores=scores,
        known=known,
        familiar=float(np.quantile(sample, _STRANGE)),
    )


def _image_kind(dataset: str) -> photos.Kind:
    """Return the kind of a data set's images by its name, for runs that do not record it."""
    digits = dataset.partition("/")[0] in ("mnist", "digits", "kmnist", "emnist")
    return "digits" if digits or dataset.startswith("csv:") else "objects"


def before_and_after(
    classify: Callable[[Images], Float[np.ndarray, "n classes"]], workdir: str | Path
) -> dict[str, float]:
    """Measure a classifier's accuracy on the test images of a denoising run.

    Args:
      classify: scores of each class, as what `load` returns gives them.
      workdir: of a finished run of the task 'denoise', whose data has to be there.

    Returns:
      The accuracies on the "clean", the "noisy" and the "restored" images. Noisy pixels that are
      lighter than white are white.

    Raises:
      UserError: there is no such run, or its data cannot be had or has changed.
    """
    workdir = Path(workdir)
    config, fingerprint = files.read_config(workdir)
    if config.task.name != "denoise":
        raise UserError(f"{workdir}: cannot denoise; give a run of the task 'denoise'")
    files.read_summary(workdir)
    examples = splits.load(config)
    if examples.fingerprint != fingerprint:
        raise UserError(f"{workdir}: was trained on other data than the {examples.name} found here")
    images, classes = examples.test
    corrupt = tasks.build(config.task, len(examples.class_names)).corrupt
    noisy = evaluate.inputs(jnp.asarray(images), jnp.arange(len(images)), corrupt)
    seen = {
        "clean": images,
        "noisy": pictures.grey(np.asarray(noisy)),
        "restored": pictures.grey(_test_scores(workdir).reshape(images.shape)),
    }
    return {
        name: float((classify(these).argmax(axis=-1) == classes).mean())
        for name, these in seen.items()
    }


def familiarity(
    scores: Scores, known: Float32[np.ndarray, "trials test classes"]
) -> Float32[np.ndarray, " n"]:
    """Measure how similar images are to the test images: from -1 to 1, the mean over trials.

    The cosine between the scores of an image and of its tenth nearest test image: nearest
    neighbours in normalised features (Sun et al. 2022, Out-of-distribution detection with deep
    nearest neighbors), with the scores as features. It flags about the same share of drawn
    digits as of test images, and a quarter to three quarters of letters, clothes and photographs.
    Scores of two classes that differ by one number know two directions, and nothing is strange.
    """
    place = -min(_NEIGHBOUR, known.shape[1])

    # All cosines at once would be too many.
    parts = np.array_split(_unit(scores), 1 + scores[..., 0].size // 1000, axis=1)
    others = _unit(known).swapaxes(1, 2)
    cosines = [np.partition(part @ others, place)[..., place] for part in parts]
    return np.concatenate(cosines, axis=1).mean(axis=0)


def _unit(scores: Float32[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    return scores / np.maximum(np.linalg.norm(scores, axis=-1, keepdims=True), 1e-12)


def _test_scores(workdir: Path) -> Scores:
    path = workdir / files.PREDICTIONS
    try:
        with np.load(path) as stored:
            scores = stored["logits"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: was changed after the run wrote it; train the run again"
        ) from error
    return scores if scores.ndim == 3 else scores[None]
