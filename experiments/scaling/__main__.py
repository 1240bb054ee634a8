"""How do the seconds and memory of an epoch grow with data, batch size, parameters and trials?

    python -m experiments.scaling [--name=cpu] [--repeats=3] [--axes ...]

Each point is measured in its own process, so that memory is measured separately.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from configs import study
from experiments import figures, tables
from experiments.scaling import report
from experiments.scaling.point import Point


class Line(NamedTuple):
    """Points that differ in one quantity."""

    axis: str  # a key of `report.AXES`
    net: str
    points: Sequence[Point]


NETS = ("mlp_512_256", "cnn_3x3")
CNN = study.MODELS["cnn_3x3"]
# Nets small enough to train a hundred at once, with the examples of an epoch.
SMALL: dict[str, tuple[dict[str, Any], int]] = {
    "linear": ({"name": "linear"}, 6_000),
    "mlp, 64 units": ({"name": "mlp", "widths": (64,)}, 6_000),
    "cnn, 8 and 16 channels": ({**CNN, "channels": (8, 16), "widths": (32,)}, 1_280),
}


def lines(repeats: int) -> list[Line]:
    """Return all points to measure."""
    base = Point({}, num_train=6_000, batch_size=128, members=1, augment=False, repeats=repeats)
    all_lines = []
    for net in NETS:
        point = base._replace(model=study.MODELS[net])
        sizes = [point._replace(num_train=n, augment=True) for n in (6_000, 60_000, 600_000)]
        batches = [point._replace(batch_size=size) for size in (8, 32, 128, 512, 2_048)]
        all_lines += [Line("num_train", net, sizes), Line("batch_size", net, batches)]
    mlps = [{"name": "mlp", "widths": (w, w)} for w in (32, 128, 512, 2_048)]
    cnns = [{**CNN, "channels": (c, 2 * c), "widths": (8 * c,)} for c in (8, 16, 32, 64)]
    for net, models in (("mlp, w and w units", mlps), ("cnn, c and 2c channels", cnns)):
        all_lines.append(Line("num_params", net, [base._replace(model=m) for m in models]))
    for net, (model, num_train) in SMALL.items():
        point = base._replace(model=model, num_train=num_train)
        all_lines.append(
            Line("members", net, [point._replace(members=count) for count in (1, 10, 100)])
        )
    return all_lines


def measure(axis: str, net: str, point: Point) -> dict[str, Any]:
    """Measure a point in its own process and return its row."""
    command = [sys.executable, "-m", "experiments.scaling.point", json.dumps(point)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    examples = point.num_train // point.batch_size * point.batch_size * point.members
    return {
        "axis": axis,
        "net": net,
        **point._asdict(),
        **found,
        "microseconds_per_example": 1e6 * found["seconds"] / examples,
    }


def main() -> None:
    """Measure and write the results."""
    # On a GPU, this process must not take the memory that the others need.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    parser = tables.parser("scaling", __doc__)
    parser.add_argument("--name", default=jax.default_backend(), help="of the results' files")
    parser.add_argument("--repeats", type=int, default=3, help="epochs of each point")
    parser.add_argument("--axes", nargs="+", choices=report.AXES, default=list(report.AXES))
    options = parser.parse_args()
    jobs = [
        (line.axis, line.net, point)
        for line in lines(options.repeats)
        for point in line.points
        if line.axis in options.axes
    ]
    rows = [measure(*job) for job in tqdm(jobs, unit="point")]
    record = {
        **tables.origin("experiments.scaling"),
        "repeats": options.repeats,
        "rows": rows,
    }
    name = f"scaling-{options.name}"
    tables.publish(name, record, report.TABLES)
    figures.save(report.figure(record), name)


if __name__ == "__main__":
    main()
