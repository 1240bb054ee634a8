"""Table and figure of `experiments.scaling`."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from experiments import figures, tables

AXES = {  # key of a row and its title
    "num_train": "training examples",
    "batch_size": "batch size",
    "num_params": "parameters",
    "members": "members",
}


def to_markdown(record: Mapping[str, Any]) -> str:
    """Seconds and memory of each point."""
    header = ["what grows", "net", "to", "epoch, s", "µs an example and member", "MB"]
    cells = [
        [
            AXES[row["axis"]],
            row["net"],
            f"{row[row['axis']]:,}",
            f"{seconds(row):.3g}",
            f"{row['microseconds_per_example']:.3g}",
            f"{memory(row) / 1e6:,.0f}",
        ]
        for row in record["rows"]
    ]
    note = (
        f"Medians of {record['repeats']} epochs without compiling. An epoch has 6,000 examples "
        "(of the small cnn 1,280) in batches of 128, not augmented, where nothing else is said; "
        "they are augmented where the training set grows, by repetition above 60,000. What a last "
        "batch lacks is added at the pace of the others. Members are one vmapped program, whatever "
        "the package itself would do on this machine. Memory is "
        "the most that the process (on an accelerator: the device) held. " + tables.source(record)
    )
    return tables.markdown(header, cells, note)


def seconds(row: Mapping[str, Any]) -> float:
    """Return the seconds of an epoch of all examples, even if the last batch is incomplete."""
    examples: int = row["num_train"] * row["members"]
    return 1e-6 * row["microseconds_per_example"] * examples


def memory(row: Mapping[str, Any]) -> int:
    """Return the bytes of the accelerator if there is one, else of the process."""
    return row["device_peak_bytes"] or row["peak_rss_bytes"]


TABLES = (to_markdown,)


def figure(record: Mapping[str, Any]) -> Figure:
    """Plot seconds (above) and memory (below), a column for each axis."""
    axes_of = list(dict.fromkeys(row["axis"] for row in record["rows"]))

    def draw(panels: Sequence[Axes]) -> None:
        for i, axis in enumerate(axes_of):
            rows = [row for row in record["rows"] if row["axis"] == axis]
            above, below = panels[i], panels[i + len(axes_of)]
            nets = dict.fromkeys(row["net"] for row in rows)
            for net, colour in zip(nets, figures.COLOURS, strict=False):
                line = [row for row in rows if row["net"] == net]
                x = [row[axis] for row in line]
                style = {"marker": "o", "color": colour, "label": net}
                above.plot(x, [seconds(row) for row in line], **style)
                below.plot(x, [memory(row) / 1e6 for row in line], color=colour, marker="o")
            above.set_title(AXES[axis], loc="left")
            above.legend(fontsize=7)
            for ax in (above, below):
                ax.set(xscale="log", yscale="log")
                ax.minorticks_off()
                ax.xaxis.set_major_formatter(EngFormatter(sep=""))
                figures.plain_numbers(ax.yaxis)
        panels[0].set_ylabel("seconds an epoch")
        panels[len(axes_of)].set_ylabel("MB")

    return figures.panels(2, len(axes_of), draw)
