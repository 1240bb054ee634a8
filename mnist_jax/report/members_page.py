"""The page that a run of many members leaves behind."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32
from markupsafe import Markup

from mnist_jax.analysis import ensemble, error_analysis
from mnist_jax.config import flatten
from mnist_jax.data.splits import Split
from mnist_jax.report import pictures, plots, run_page, sweep_plots

MISTAKES = 16  # how many are shown

# Logits out of fold of all training examples, for each seed, and their classes.
HeldOut = tuple[Float32[np.ndarray, "seeds train classes"], Int32[np.ndarray, " train"]]


def render(
    summary: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    test: Split,
    logits: Float32[np.ndarray, "members test classes"],
    command: str,
    held_out: HeldOut | None = None,
) -> str:
    """The text of a self-contained HTML file.

    Args:
      summary: what `summary.json` holds.
      rows: of `members.jsonl`.
      history: the rows of `metrics.jsonl`.
      config: the run's whole configuration.
      test: images as they were before any scaling, and their classes.
      logits: of the judged members for them.
      command: the shell command that does the run again.
      held_out: of a cross-validation, to choose thresholds by.
    """
    settings = summary["settings"]
    chosen = [row["member"] for row in rows if row["setting"] == summary["chosen"]]
    swept = sweep_plots.sweep(settings)
    committee = summary["committee"]
    diagrams = [one["reliability"] for one in (committee, summary["test"]) if one]
    validated = any(row["val_accuracy"] is not None for row in rows)
    outer = summary["nested"]["folds"] if summary["nested"] else []
    matrix = np.asarray(summary["confusion_matrix"], np.int64)
    names = [str(name) for name in summary["class_names"]]
    figures = {
        "sweep": swept,
        "distribution": _distribution(summary, rows, validated),
        "learning": sweep_plots.learning_bands(history, chosen, validated),
        "committees": sweep_plots.committees(committee["by_size"]) if committee else None,
        "calibration": plots.reliability(*diagrams) if diagrams[-1] else None,
        "confusion": plots.confusion(matrix, names),
    }
    drawn = {
        key: Markup(plots.svg(figure, key.capitalize())) if figure else ""
        for key, figure in figures.items()
    }
    return run_page.template("members.html.jinja").render(
        summary=summary,
        settings=[{**s, "name": sweep_plots.name(s["overrides"])} for s in settings],
        config_rows=list(flatten(config)),
        outer=[{**row, "name": sweep_plots.name(row["overrides"])} for row in outer],
        majority=run_page.majority(matrix, names),
        mistakes=_mistakes(test, logits, names),
        names=names,
        validated=validated,
        two_classes=_two_classes(test, logits, held_out),
        judged=len(logits),
        command=command,
        **drawn,
    )


def _distribution(
    summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], validated: bool
) -> Any:
    """A figure of all members' validation accuracy; without it, of several's test accuracy."""
    if validated:
        return sweep_plots.distribution(rows, summary["settings"])
    accuracy = summary["test"]["accuracy"]
    tested = [
        {**row, "val_accuracy": row["test_accuracy"]} for row in rows if "test_accuracy" in row
    ]
    if len(tested) < 2:
        return None
    (setting,) = summary["settings"]  # among several only validation can choose
    figure = sweep_plots.distribution(tested, [{**setting, "val_accuracy": accuracy}])
    figure.axes[0].set_xlabel("test accuracy")
    return figure


def _two_classes(
    test: Split, logits: Float32[np.ndarray, "members test classes"], held_out: HeldOut | None
) -> dict[str, Any] | None:
    """Of two classes, what thresholds chosen out of fold make of the test split."""
    if held_out is None or logits.shape[-1] != 2:
        return None
    # What is counted is each net's decisions: their mean would have scores of another scale.
    own, others = (
        (scores.reshape(-1, 2), np.tile(labels, len(scores)))
        for scores, labels in ((logits, test.labels), held_out)
    )
    return run_page.trade_offs(*own, others, "out of fold")


def _mistakes(
    test: Split, logits: Float32[np.ndarray, "members test classes"], names: Sequence[str]
) -> list[dict[str, Any]]:
    """What the committee gets wrong, the most confident first, and how many members do."""
    decisions = error_analysis.decide(ensemble.mean_probabilities(logits))
    wrong = (logits.argmax(axis=-1) != test.labels).sum(axis=0)
    return [
        {
            "index": index,
            "true": names[test.labels[index]],
            "seen": names[decisions.predicted[index]],
            "wrong": int(wrong[index]),
            "image": pictures.png(test.images[index]),
        }
        for index in error_analysis.worst_mistakes(decisions, test.labels, MISTAKES).tolist()
    ]
