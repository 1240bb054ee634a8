"""Tables and figure of `experiments.members_speed`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import figures, tables


def to_markdown(record: Mapping[str, Any]) -> str:
    """Throughput of each net and number of trials."""
    header = ["net", "members", "at once", "epoch, s", "sharing batches, s", "a member, ms"]
    header += ["one plain run / a member", "PyTorch / a member"]
    cells = []
    for net in record["throughput"]:
        alone = net["alone_epoch_seconds"]
        for row in net["rows"]:
            shared = row["epoch_seconds_sharing"]
            best = min(row["epoch_seconds"], shared or float("inf")) / row["members"]
            ratios = [f"{alone[p] / best:.2f}" if p in alone else "-" for p in ("ours", "pytorch")]
            cells.append(
                [
                    net["net"],
                    f"{row['members']}",
                    f"{row['width']}",
                    f"{row['epoch_seconds']:.3g}",
                    f"{shared:.3g}" if shared else "-",
                    f"{1e3 * best:.3g}",
                    *ratios,
                ]
            )
    note = (
        f"Seconds for an epoch of 60,000 examples of every member, batch "
        f"{record.get('batch_size', 128)}, medians of {record['repeats']} interleaved turns, "
        "without compilation. At once: each member has its own batches. A member: by the faster of "
        "both ways. The last columns: how much longer one run takes alone, PyTorch's on all cores. "
        + "".join(
            f"Not measured: {peer}: {reason}. "
            for net in record["throughput"]
            for peer, reason in net["failed"].items()
        )
        + tables.source(record)
    )
    return tables.markdown(header, cells, note)


def cross_validation_to_markdown(record: Mapping[str, Any]) -> str:
    """Cross-validation of each model."""
    header = ["ten folds of", "epochs", "ours, s", "scikit-learn, s", "times faster"]
    header += ["PyTorch, s", "times faster", "ours, %", "scikit-learn, %"]
    cells = [
        [
            f"{row['model']} ({row['scikit_learn']})",
            f"{row['epochs']}",
            f"{row['ours_seconds']:.1f}",
            f"{row['scikit_learn_seconds']:.1f}",
            f"{row['scikit_learn_seconds'] / row['ours_seconds']:.1f}",
            *_beside(row.get("pytorch_seconds"), row["ours_seconds"]),
            *(
                tables.spread([100 * accuracy for accuracy in row[key]])
                for key in ("ours_accuracies", "scikit_learn_accuracies")
            ),
        ]
        for row in record["cross_validation"]
    ]
    note = (
        "Seconds from the call to the scores, measured once, including compilation, on the 60,000 "
        "training images (SGDClassifier trains one-versus-rest, one example at a time). PyTorch: "
        "ten runs one after the other, each with the training examples of one fold, steps only. "
        "Accuracy on held-out folds: mean ± sd of the ten. " + tables.source(record)
    )
    return tables.markdown(header, cells, note)


def _beside(theirs: float | None, ours: float) -> list[str]:
    """Return seconds and their ratio to ours; earlier records have none."""
    return [f"{theirs:.1f}", f"{theirs / ours:.1f}"] if theirs else ["-", "-"]


TABLES = (to_markdown, cross_validation_to_markdown)


def figure(record: Mapping[str, Any]) -> Figure:
    """Plot milliseconds of an epoch and trial against the number of trials."""

    def draw(axes: Sequence[Axes]) -> None:
        for net, ax in zip(record["throughput"], axes, strict=True):
            x = [row["members"] for row in net["rows"]]
            for key, label, colour in (
                ("epoch_seconds", "batches of their own", figures.COLOURS[0]),
                ("epoch_seconds_sharing", "shared batches", figures.COLOURS[1]),
            ):
                y = [1e3 * (row[key] or np.nan) / row["members"] for row in net["rows"]]
                ax.plot(x, y, marker="o", color=colour, label=label)
            for (peer, seconds), colour in zip(
                net["alone_epoch_seconds"].items(), figures.COLOURS[2:], strict=False
            ):
                ax.axhline(1e3 * seconds, color=colour, ls="--", label=f"{peer}, one run")
            ax.set(xscale="log", yscale="log", xlabel="members")
            ax.set_title(net["net"], loc="left")
            figures.plain_numbers(ax.xaxis)
            figures.plain_numbers(ax.yaxis)
        axes[0].set_ylabel("ms an epoch and member")
        figures.legend_below(axes)

    return figures.panels(1, len(record["throughput"]), draw)
