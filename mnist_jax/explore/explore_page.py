"""The page of a data set: images, distributions, principal components and duplicates."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mnist_jax.data.datasets import Dataset
from mnist_jax.explore import explore_plots, statistics
from mnist_jax.report import templates

_EXAMPLES = 10  # of each class; also the number of unusual ones
_DUPLICATES = 24  # shown at most
_PLACES = 4  # of a duplicate that are named
_POINTS = 3000  # in the scatter plot
_SEED = 0  # of random choices


def render(
    dataset: Dataset, *, command: str, versions: Mapping[str, str], revision: str | None
) -> str:
    """Return the page of a data set as a self-contained HTML file.

    Args:
        dataset: at least two training images.
        command: the shell command that makes this page.
        versions: of the packages in use.
        revision: of this code; None outside a checkout.
    """
    images, labels, names = dataset.train_images, dataset.train_labels, dataset.class_names
    counts, test_counts = (
        np.bincount(split, minlength=len(names)) for split in (labels, dataset.test_labels)
    )
    found = statistics.principal_components(images)
    points = np.random.default_rng(_SEED).permutation(len(labels))[:_POINTS]
    total = statistics.total_intensity(images)
    by_class = [total[labels == label] for label in range(len(names))]
    mean, sd = statistics.pixel(images)
    return templates.load("explore.html.jinja").render(
        summary={
            "dataset": dataset.name,
            "requested_dataset": dataset.name,
            "data_fingerprint": dataset.fingerprint,
            "versions": versions,
            "git_revision": revision,
        },
        command=command,
        dataset=dataset,
        sizes=counts.tolist(),
        mean=mean,
        sd=sd,
        black=float((images == 0).mean()),
        always_black=(images.max(axis=0) == 0).sum(),
        classes=[_class(dataset, found.scores, label) for label in np.flatnonzero(counts).tolist()],
        components=found.share.tolist(),
        points=points,
        duplicates=_duplicates(dataset),
        counts=explore_plots.class_counts({"train": counts, "test": test_counts}, names),
        densities=explore_plots.densities(by_class, names),
        boxes=explore_plots.boxes([one / images[0].size for one in by_class], names),
        scatter=explore_plots.scatter(
            found.scores[points, :2], found.share[:2], labels[points], names
        ),
    )


def _class(dataset: Dataset, scores: np.ndarray, label: int) -> dict[str, Any]:
    """Return the images of a class that the page shows."""
    images, labels = dataset.train_images, dataset.train_labels
    examples = statistics.of_class(labels, label, _EXAMPLES, _SEED)
    unusual = statistics.unusual(scores, labels, label, _EXAMPLES)
    return {
        "name": dataset.class_names[label],
        "colour": explore_plots.colour(label),
        "mean": statistics.class_mean(images, labels, label),
        "examples": [(index, images[index]) for index in examples],
        "unusual": [(index, images[index]) for index in unusual],
    }


def _duplicates(dataset: Dataset) -> dict[str, Any]:
    """Count the images that occur more than once; conflicting labels are shown first."""
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
                "image": images[group[0]],
                "places": [f"{where[i]}: {dataset.class_names[labels[i]]}" for i in places],
                "more": len(group) - len(places),
                "conflict": len(first) > 1,
                "splits": {where[i].split()[0] for i in group},
            }
        )
    rows.sort(key=lambda row: (not row["conflict"], len(row["splits"]) == 1))
    splits = [row["splits"] for row in rows]
    return {
        "train": splits.count({"train"}),
        "test": splits.count({"test"}),
        "both": splits.count({"train", "test"}),
        "conflicts": sum(row["conflict"] for row in rows),
        "shown": rows[:_DUPLICATES],
    }
