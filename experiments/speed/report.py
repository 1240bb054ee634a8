"""Tables and figure of `experiments.speed`."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import figures, tables
from experiments.speed.peers import OURS, PEERS, THEIRS


def to_markdown(record: Mapping[str, Any]) -> str:
    """Seconds of an epoch of each net and batch size, and the ratio of ours to the best peer."""
    peers = _peers(record)
    ours = [name for name in OURS if name in peers]
    header = ["net", "batch", *peers, *(f"{name} / best peer" for name in ours)]
    header += ["predicting: ours / best peer"]
    cells = []
    for result in record["results"]:
        rows = result["peers"]
        ratios = [_ratio(rows, name, "epoch_seconds") for name in ours]
        ratios += [_ratio(rows, "ours", "predict_10000_seconds")]
        times = [f"{rows[name]['epoch_seconds']:.3g}" if name in rows else "-" for name in peers]
        cells.append([f"`{result['net']}`", str(result["batch_size"]), *times, *ratios])
    first = record["results"][0]["peers"]["ours"]
    turns = len(first["epoch_seconds_of_each_turn"])
    predictions = len(first.get("predict_10000_seconds_of_each_turn", ())) or turns
    note = (
        f"Seconds per epoch of 60,000 examples without compilation, medians of {turns} interleaved "
        f"turns of {_examples(record)} examples each; {predictions} turns of predicting 10,000 "
        "examples, which do not depend on the batch. "
        + "By core: every core is a device with its shard of each batch. "
        * (len(ours) > 1)
        + "Ours / best peer: the ratio to the peer with the smallest median, turn by turn: the "
        f"median, and in brackets the range if each turn was recorded; {tables.source(record)}"
    )
    return tables.markdown(header, cells, note)


def _ratio(rows: Mapping[str, Mapping[str, Any]], name: str, key: str) -> str:
    """Return the median ratio of ours to the best peer over the turns, with its range."""
    others = [rows[name] for name in THEIRS if name in rows]
    if not others or name not in rows:
        return "-"
    ours, best = rows[name], min(others, key=lambda row: row[key])
    turns = f"{key}_of_each_turn"
    if turns not in ours:  # in earlier records of predicting
        return f"{ours[key] / best[key]:.2f}"
    # A peer that failed later has fewer.
    ratios = [a / b for a, b in zip(ours[turns], best[turns], strict=False)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def _examples(record: Mapping[str, Any]) -> str:
    """Return the examples of a turn, which differ between nets."""
    most: dict[str, int] = {}
    for result in record["results"]:
        most[result["net"]] = max(most.get(result["net"], 0), result["num_train"])
    return " or ".join(f"{examples:,}" for examples in sorted(set(most.values())))


def details(record: Mapping[str, Any]) -> str:
    """All measurements, a row for each net, batch size and peer."""
    header = ["net", "batch", "peer", "epoch, s", "predicting 10,000, s", "examples/s"]
    header += ["compiling, s", "start to first epoch, s", "MB", "GFLOP/s"]
    peak = max(record.get("gemm_gflop_per_second", {}).values(), default=None)
    cells = []
    for result in record["results"]:
        for name in _peers(record):
            row = result["peers"].get(name, {})
            rate = row.get("train_gflop_per_second")
            cells.append(
                [
                    f"`{result['net']}`",
                    f"{result['batch_size']}",
                    name,
                    _number(row.get("epoch_seconds")),
                    _number(row.get("predict_10000_seconds")),
                    f"{row['examples_per_second']:,.0f}" if row else "-",
                    _with_cache(row, "compile_seconds"),
                    _with_cache(row, "start_to_first_epoch_seconds"),
                    _megabytes(row),
                    f"{rate:,.0f} ({rate / peak:.0%})" if rate and peak else "-",
                ]
            )
    reasons = {
        f"{name}: {reason}"
        for result in record["results"]
        for name, reason in result["failed"].items()
    }
    note = (
        "In brackets: seconds of a second start, which finds what the first has compiled; memory "
        "of an accelerator; the rate's share of the machine's float32 matrix product"
        + (f", {peak:,.0f} GFLOP/s in the same run" if peak else "")
        + ". The start to the first epoch is measured on the examples of a turn, and the rest of "
        "an epoch added at the median's pace. A rate counts the products of the net, forward and "
        "backward. Compiling is what first calls take beyond later ones. Memory is the most that "
        "the process held. "
        + "".join(f"Not measured: {reason}. " for reason in sorted(reasons))
        + tables.source(record)
    )
    return tables.markdown(header, cells, note)


def figure(record: Mapping[str, Any]) -> Figure:
    """Plot seconds of an epoch against batch size: a panel for each net, a line for each peer."""
    names = list(dict.fromkeys(result["net"] for result in record["results"]))

    def draw(axes: Sequence[Axes]) -> None:
        for ax, net in zip(axes, names, strict=True):
            results = [result for result in record["results"] if result["net"] == net]
            for peer, colour in zip(PEERS, figures.COLOURS, strict=False):
                there = [result for result in results if peer in result["peers"]]
                x = [result["batch_size"] for result in there]
                y = [result["peers"][peer]["epoch_seconds"] for result in there]
                if there:
                    ax.plot(x, y, marker="o", color=colour, label=peer)
            ax.set(xscale="log", yscale="log", xlabel="batch size")
            ax.set_title(net, loc="left")
            sizes = [result["batch_size"] for result in results]
            ax.set_xticks(sizes, map(str, sizes))
            ax.minorticks_off()
            figures.plain_numbers(ax.yaxis)
        axes[0].set_ylabel("seconds an epoch")
        figures.legend_below(axes)

    return figures.panels(1, len(names), draw)


def _peers(record: Mapping[str, Any]) -> list[str]:
    """Return the peers that ran or failed; earlier records have fewer."""
    tried = {
        name for result in record["results"] for name in {**result["peers"], **result["failed"]}
    }
    return [name for name in PEERS if name in tried]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _with_cache(row: Mapping[str, Any], key: str) -> str:
    cached = row.get(f"{key}_cached")
    return _number(row.get(key)) + (f" ({_number(cached)})" if cached is not None else "")


def _megabytes(row: Mapping[str, Any]) -> str:
    if "peak_rss_bytes" not in row:
        return "-"
    on_device = row["device_peak_bytes"]
    return f"{row['peak_rss_bytes'] / 1e6:,.0f}" + (
        f" ({on_device / 1e6:,.0f})" if on_device else ""
    )


TABLES = (to_markdown, details)
