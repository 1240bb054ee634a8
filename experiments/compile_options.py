"""How much faster do XLA's undocumented options make training on a CPU?

    python -m experiments.compile_options [--repeats=10]

The epochs of each shipped config are compiled without these options, with the option for passes
alone (so without the one for YNNPACK), and with both. The three programs take turns on random
images, so that a change in the machine's speed affects them alike.
"""

import statistics
import time
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from configs import cnn, fast, linear, mlp
from experiments import tables, timing
from mnist_jax import train
from mnist_jax.runtime import xla

OPTIONS: Mapping[str, dict[str, str | bool]] = {
    "none": {},
    "passes": xla.CPU_OPTIONS,
    "all": xla.CPU_TRAINING_OPTIONS,
}
CONFIGS = {"linear": linear, "mlp": mlp, "fast": fast, "cnn": cnn}


def measure(config: ConfigDict, count: int, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each epoch over `count` images, by the set of options."""
    images, labels = jax.device_put(timing.random_examples(count))
    recipe = train.make_recipe(config, 10, count)
    hparams, root = train.make_hparams(config), jax.random.key(config.seed)
    state = jax.jit(train.init_state, static_argnums=0)(recipe, hparams, root)
    lowered = train.train_epoch.lower(recipe, state, images, labels, hparams, root)
    programs = {name: lowered.compile(compiler_options=own) for name, own in OPTIONS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for repeat in range(repeats + 1):
        for name, program in programs.items():
            own = jax.block_until_ready(jax.tree.map(lambda leaf: leaf.copy(), state))
            start = time.perf_counter()
            jax.block_until_ready(program(own, images, labels, hparams, root))
            if repeat:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    return seconds


def to_markdown(record: Mapping[str, Any]) -> str:
    """Show the seconds with all options, and the paired ratios of the others, per config."""
    cells = []
    for row in record["rows"]:
        everything = row["seconds"]["all"]
        shown = []
        for name in ("none", "passes"):
            ratios = [a / b for a, b in zip(row["seconds"][name], everything, strict=True)]
            low, middle, high = statistics.quantiles(ratios)
            shown.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        cells.append([f"`{row['config']}`", f"{statistics.median(everything):.3f}", *shown])
    note = (
        f"Seconds of an epoch of {record['count']:,} random images with the options of "
        "`runtime/xla.py`, and how many times as long it takes without them: median and quartiles "
        f"of {record['repeats']} paired ratios; {tables.source(record)}"
    )
    return tables.markdown(["config", "epoch, s", "without all", "without YNNPACK's"], cells, note)


TABLES = (to_markdown,)


def main() -> None:
    """Measure and write the results."""
    parser = tables.parser("compile_options", __doc__)
    parser.add_argument("--repeats", type=int, default=10, help="epochs of each program")
    parser.add_argument("--count", type=int, default=12_800, help="images of an epoch")
    options = parser.parse_args()
    if not xla.has_options():
        parser.error("needs a CPU and a release of jaxlib in xla.TESTED: others may abort")
    record = {
        **tables.origin("experiments.compile_options"),
        "count": options.count,
        "repeats": options.repeats,
        "rows": [
            {
                "config": f"configs/{name}.py",
                "seconds": measure(module.get_config("mnist"), options.count, options.repeats),
            }
            for name, module in tqdm(CONFIGS.items(), unit="config")
        ],
    }
    tables.publish("compile_options", record, TABLES)


if __name__ == "__main__":
    main()
