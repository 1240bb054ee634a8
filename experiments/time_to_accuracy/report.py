"""Table and figure of `experiments.time_to_accuracy`."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import figures, tables

TIMES = {"train_seconds": "training, s", "whole_seconds": "whole process, s"}


def to_markdown(record: Mapping[str, Any]) -> str:
    """Seconds and test accuracy of each target and recipe."""
    header = ["target", "recipe", "parameters", "epochs", "reached", *TIMES.values()]
    header += ["test accuracy, %", "revision"]
    cells = []
    asked = {target for recipe in record["recipes"] for target in recipe["targets"]}
    for target in sorted(asked, key=float):
        for recipe in record["recipes"]:
            if target not in recipe["targets"]:
                continue
            found = recipe["targets"][target]
            cells.append(
                [
                    f"{target}%",
                    f"`{recipe['recipe']}`",
                    f"{recipe['num_params']:,}",
                    f"{recipe['published_epochs']}",
                    f"{len(found['epoch'])} of {recipe['n']}",
                    *(tables.spread(found[key], 1) for key in TIMES),
                    tables.spread(found["test_accuracy_percent"]),
                    ", ".join(recipe["git_revisions"]),
                ]
            )
        cells += [[f"{target}%", f"`{name}`", *["-"] * 7] for name in record["failed"]]
    sizes = record["examples"]
    of_recipes = {"device": tables.devices(record["recipes"]), "git_revision": None}
    note = (
        f"Mean ± standard deviation over the seeds that reached the target on {sizes['val']:,} "
        f"validation examples of {record['dataset']} within the recipe's own number of epochs, "
        f"trained on {sizes['train']:,}. Test accuracy: of the first parameters that did, on "
        f"all {sizes['test']:,}. Training excludes compilation and validation; the whole process "
        "includes imports, data, compilation (with an empty cache) and validation. Validation is "
        "once per epoch, on the examples that also selected the settings in configs/. A recipe "
        "without a row for a target was stopped at an easier one; "
        + "".join(f"not run: {name}: {reason}; " for name, reason in record["failed"].items())
        + "".join(f"left out: {name}; " for name in record["left_out"])
        + tables.source({**record, **of_recipes})
    )
    return tables.markdown(header, cells, note)


TABLES = (to_markdown,)


def figure(record: Mapping[str, Any]) -> Figure:
    """Plot validation error against seconds of training and of the whole process."""

    def draw(axes: Sequence[Axes]) -> None:
        for ax, (key, label) in zip(axes, TIMES.items(), strict=True):
            for recipe, colour in zip(record["recipes"], figures.COLOURS, strict=False):
                x = [row[key] for row in recipe["curve"]]
                y = [100 - row["val_accuracy_percent"] for row in recipe["curve"]]
                ax.plot(x, y, marker="o", color=colour, label=recipe["recipe"])
            ax.set(xscale="log", yscale="log", xlabel=label)
            figures.plain_numbers(ax.xaxis)
            figures.plain_numbers(ax.yaxis)
        axes[0].set_ylabel("validation error, %")
        figures.legend_below(axes)

    return figures.panels(1, len(TIMES), draw)
