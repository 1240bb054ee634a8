"""The page that shows several runs side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from mnist_jax import config as configs
from mnist_jax.compare import compare_plots, comparison
from mnist_jax.compare.comparison import Run, Versus
from mnist_jax.report import formats, templates

Images = UInt8[np.ndarray, "test 28 28 1"]
EXAMPLES = 16  # shown at most of the images that only one run gets right
_ORIGIN = ("git_revision", "device", "backend", "versions")  # what of a summary is compared too


def render(runs: Sequence[Run], found: Sequence[Versus], images: Images | None) -> str:
    """Return the text of a self-contained HTML file.

    Args:
      runs: two or more, of the same data.
      found: of each but the first, how it compares with that.
      images: of the test split; None if they are not available.
    """
    names = short_names([run.name for run in runs])
    described = [comparison.accuracy(run) for run in runs]
    values = [list(run.accuracies.values()) for run in runs]
    differ, same = keys(runs)
    replaced = (s for run in runs if (s := run.summary)["dataset"] != s["requested_dataset"])
    return templates.load("compare.html.jinja").render(
        summary=next(replaced, runs[0].summary),
        runs=[
            {
                "name": name,
                "colour": compare_plots.colour(place),
                "accuracy": one,
                "on_new_images": comparison.on_new_images(run),
                "flattery": comparison.flattery(run),
                "run": run,
            }
            for place, (name, run, one) in enumerate(zip(names, runs, described, strict=True))
        ],
        folds=runs[0].folds,
        task=formats.task_name(runs[0].config),
        versus=[_versus(runs[0], *pair, images) for pair in zip(runs[1:], found, strict=True)],
        differ=differ,
        config_rows=same,
        pictured=images is not None,
        accuracies=compare_plots.accuracies(
            names, values, described, [comparison.on_new_images(run) for run in runs]
        ),
        learning=compare_plots.learning(runs),
    )


def short_names(names: Sequence[str]) -> list[str]:
    """Return the last part of each path if these differ, else the whole paths."""
    last = [Path(name).resolve().name for name in names]
    return last if len(set(last)) == len(set(names)) else list(names)


def keys(runs: Sequence[Run]) -> tuple[list[tuple[str, list[Any]]], list[tuple[str, Any]]]:
    """Return the keys in which the runs' configs differ, with every run's value; and the others.

    What is not of the config but may explain a difference, revision, device and versions, is among
    the former where it differs.
    """
    tables = [{**run.config, "run": {key: run.summary[key] for key in _ORIGIN}} for run in runs]
    pairs = (configs.differences(tables[0], other, same_data=True) for other in tables)
    differ = sorted({key for pair in pairs for key in pair})
    flat = [dict(configs.flatten(table)) for table in tables]
    rows = {key: [table.get(key, "–") for table in flat] for key in (*differ, *flat[0])}
    same = [
        (key, value)
        for key, value in configs.flatten(runs[0].config)
        if all(other == value for other in rows[key])
    ]
    return [(key, rows[key]) for key in differ], same


def _versus(first: Run, other: Run, found: Versus, images: Images | None) -> Mapping[str, Any]:
    """Compare one run with the first, with examples that only one of them gets right."""
    mine, theirs = comparison.correct(first), comparison.correct(other)
    only = {"gained": theirs & ~mine, "lost": mine & ~theirs}
    return {
        "verdict": comparison.verdict(found.compared),
        "found": found,
        "both": int((mine & theirs).sum()),
        "neither": int((~mine & ~theirs).sum()),
        **{key: _examples((first, other), wanted, images) for key, wanted in only.items()},
    }


def _examples(
    runs: tuple[Run, Run], wanted: Bool[np.ndarray, " test"], images: Images | None
) -> list[dict[str, Any]]:
    """Some of the wanted test examples, those first on whose true class the runs disagree most."""
    if images is None:
        return []
    names, labels = runs[0].summary["class_names"], runs[0].labels
    believed = [comparison.probabilities(run) for run in runs]
    decided = [comparison.decisions(run) for run in runs]
    of_true = [p[np.arange(len(labels)), labels] for p in believed]
    index = np.flatnonzero(wanted)
    order = np.argsort(-abs(of_true[1] - of_true[0])[index], kind="stable")[:EXAMPLES]
    return [
        {
            "index": i,
            "image": images[i],
            "true": names[labels[i]],
            "seen": [
                (names[classes[i]], float(p[i, classes[i]]) if run.probable else None)
                for run, classes, p in zip(runs, decided, believed, strict=True)
            ],
        }
        for i in index[order].tolist()
    ]
