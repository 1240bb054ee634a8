"""A data set on one page: `python -m mnist_jax.explore --dataset=fashion_mnist`.

`render` is pure; reading the data and writing the page are left to `main`.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from mnist_jax.data import datasets
from mnist_jax.data.datasets import Dataset
from mnist_jax.explore import explore_plots, statistics
from mnist_jax.report import pictures, plots, templates
from mnist_jax.runtime import exits, provenance
from mnist_jax.types import UserError
from mnist_jax.workdir import files

_EXAMPLES = 10  # of each class, and as many unusual ones
_DUPLICATES = 24  # how many are shown
_PLACES = 4  # of a duplicate, how many are named
_POINTS = 3000  # in the scatter plot
_SEED = 0  # of what is picked at random


def render(
    dataset: Dataset, *, command: str, versions: Mapping[str, str], revision: str | None
) -> str:
    """The page of a data set, as the text of a self-contained HTML file.

    Args:
        dataset: at least two training images.
        command: the shell command that makes the page again.
        versions: of the packages that made it.
        revision: of this code; None outside a checkout.
    """
    images, labels, names = dataset.train_images, dataset.train_labels, dataset.class_names
    counts, test_counts = (
        np.bincount(split, minlength=len(names)) for split in (labels, dataset.test_labels)
    )
    found = statistics.principal_components(images)
    points = np.random.default_rng(_SEED).permutation(len(labels))[:_POINTS]
    total = statistics.total_intensity(images)
    mean, sd = statistics.pixel(images)
    figures = {
        "Images of each class": explore_plots.class_counts(counts, test_counts, names),
        "Density of the total intensity within each class": explore_plots.densities(
            total, labels, names, "white pixels' worth of light"
        ),
        "Box plot of the mean intensity within each class": explore_plots.boxes(
            total / images[0].size, labels, names, "mean pixel, from black 0 to white 1"
        ),
        "The first two principal components": explore_plots.scatter(
            found.scores[points, :2], found.share[:2], labels[points], names
        ),
    }
    drawn = [Markup(plots.svg(figure, caption)) for caption, figure in figures.items()]
    return templates.load("explore.html.jinja").render(
        summary={
            "dataset": dataset.name,
            "requested_dataset": dataset.name,
            "data_fingerprint": dataset.fingerprint,
            "versions": versions,
            "git_revision": revision,
        },
        command=command,
        shape=images.shape[1:3],
        num_train=len(labels),
        num_test=len(dataset.test_labels),
        num_classes=len(names),
        sizes=(int(counts.min()), int(counts.max())),
        mean=mean,
        sd=sd,
        black=float((images == 0).mean()),
        always_black=(images.max(axis=0) == 0).sum(),
        classes=[_class(dataset, found.scores, label) for label in np.flatnonzero(counts).tolist()],
        components=found.share.tolist(),
        num_points=len(points),
        duplicates=_duplicates(dataset),
        **dict(zip(("counts", "densities", "boxes", "scatter"), drawn, strict=True)),
    )


def _class(dataset: Dataset, scores: np.ndarray, label: int) -> dict[str, Any]:
    """What is shown of a class."""
    images, labels = dataset.train_images, dataset.train_labels
    examples = statistics.of_class(labels, label, _EXAMPLES, _SEED)
    unusual = statistics.unusual(scores, labels, label, _EXAMPLES)
    return {
        "name": dataset.class_names[label],
        "colour": explore_plots.colour(label),
        "mean": pictures.png(statistics.class_mean(images, labels, label)),
        "examples": [(index, pictures.png(images[index])) for index in examples],
        "unusual": [(index, pictures.png(images[index])) for index in unusual],
    }


def _duplicates(dataset: Dataset) -> dict[str, Any]:
    """How often an image occurs more than once, and where: conflicting labels are shown first."""
    images = np.concatenate([dataset.train_images, dataset.test_images])
    labels = np.concatenate([dataset.train_labels, dataset.test_labels]).tolist()
    num_train = len(dataset.train_labels)
    where = [f"train {i}" for i in range(num_train)]
    where += [f"test {i}" for i in range(len(labels) - num_train)]
    rows: list[dict[str, Any]] = []
    for group in statistics.duplicates(images):
        first = {labels[i]: i for i in reversed(group)}  # of each label
        places = sorted(group, key=lambda i: (first[labels[i]] != i, i))[:_PLACES]
        rows.append(
            {
                "image": group[0],
                "places": [f"{where[i]}: {dataset.class_names[labels[i]]}" for i in places],
                "more": len(group) - len(places),
                "conflict": len(first) > 1,
                "splits": {where[i].partition(" ")[0] for i in group},
            }
        )
    rows.sort(key=lambda row: (not row["conflict"], len(row["splits"]) == 1))
    return {
        "train": sum(row["splits"] == {"train"} for row in rows),
        "test": sum(row["splits"] == {"test"} for row in rows),
        "both": sum(len(row["splits"]) == 2 for row in rows),
        "conflicts": sum(row["conflict"] for row in rows),
        "shown": [
            {**row, "image": pictures.png(images[row["image"]])} for row in rows[:_DUPLICATES]
        ],
    }


@exits.command
def main(argv: Sequence[str]) -> int:
    """Writes the page of a data set; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m mnist_jax.explore",
        description="Shows a data set on one self-contained page.",
    )
    parser.add_argument(
        "--dataset", required=True, metavar="NAME",
        help="mnist, fashion_mnist, digits, csv:PATH or a tfds builder",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: runs/explore-NAME.html")
    parser.add_argument("--data_dir", metavar="DIR", help="as config.data.data_dir")
    parser.add_argument("--archives", metavar="DIR", help="as config.data.archives")
    options = parser.parse_args(argv)
    out = options.out or Path("runs", f"explore-{datasets.file_name(options.dataset)}.html")
    dataset = datasets.load(
        options.dataset, data_dir=options.data_dir, archives=options.archives, echo=print
    )
    if len(dataset.train_labels) < 2:
        raise UserError(f"{dataset.name}: has a single training image: nothing to explore")
    _make_folder(out)
    page = render(
        dataset,
        command=shlex.join(["python", "-m", "mnist_jax.explore", *argv]),
        versions=provenance.versions(),
        revision=provenance.git_revision(),
    )
    files.write(out, page)
    print(
        f"{dataset.name}: {len(dataset.train_labels):,} images to train, "
        f"{len(dataset.test_labels):,} to test  page: {out}"
    )
    return 0


def _make_folder(out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{out}: cannot be written ({reason}); give another --out") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
