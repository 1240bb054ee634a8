"""How fast is an epoch, side by side with PyTorch and the usual way of writing it in JAX?

    python -m experiments.speed [--name=cpu] [--repeats=5] [--nets ...] [--batches ...]

Same nets, batches, optimizer, data and machine; the peers take turns (ours, theirs, ours, ...),
each median is over the turns, and the ratio is of the medians. Needs `pip install -e '.[bench]'`.
"""

import argparse
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from experiments import peers, tables
from mnist_jax import provenance

NETS = ("mlp_512_256", "cnn_3x3", "cnn_5x5_3x3")
BATCHES = (32, 128, 512)
PEERS: dict[str, Callable[..., peers.Peer]] = {
    "ours": peers.ours,
    "flax example": peers.flax_example,
    "pytorch": peers.pytorch,
    "pytorch compiled": peers.pytorch_compiled,
}
EPOCH = 60_000


def seconds(function: Callable[[], None]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(net: str, batch_size: int, num_train: int, repeats: int) -> dict[str, Any]:
    """Every peer's seconds for an epoch of 60,000 and for 10,000 predictions, taking turns.

    Args:
      net: a name in `nets.NETS`.
      batch_size: of training.
      num_train: examples of one timed turn; the time is scaled to an epoch.
      repeats: turns.
    """
    rng = np.random.default_rng(0)  # what the pixels are does not change the time
    images = rng.integers(0, 256, (num_train // batch_size * batch_size, 28, 28, 1), np.uint8)
    labels = rng.integers(0, 10, len(images)).astype(np.int32)
    ready, failed, cold = {}, {}, {}
    for name, make in PEERS.items():
        try:
            ready[name] = make(net, images, labels, batch_size)
            cold[name] = seconds(ready[name].train)
            ready[name].predict()
        except Exception as error:  # a peer that is not installed, or cannot compile here
            ready.pop(name, None)
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in ready}
    for _ in range(repeats):
        for name, peer in ready.items():
            turns[name].append((seconds(peer.train), seconds(peer.predict)))
    rows = {}
    for name, times in turns.items():
        train_time, predict_time = (statistics.median(t) for t in zip(*times, strict=True))
        scale = EPOCH / len(images)
        rows[name] = {
            "epoch_seconds": train_time * scale,
            "predict_10000_seconds": predict_time * 10_000 / len(images),
            "examples_per_second": len(images) / train_time,
            "compile_seconds": max(cold[name] - train_time, 0.0),
            "epoch_seconds_of_each_turn": [t[0] * scale for t in times],
        }
    return {"net": net, "batch_size": batch_size, "peers": rows, "failed": failed}


def to_markdown(record: Mapping[str, Any]) -> str:
    """A row for each net and batch: seconds an epoch, and ours over the best of the others."""
    header = ["net", "batch", *PEERS, "ours / best peer", "predicting: ours / best peer"]
    cells = []
    for result in record["results"]:
        rows = result["peers"]
        ratios = []
        for key in ("epoch_seconds", "predict_10000_seconds"):
            others = [row[key] for name, row in rows.items() if name != "ours"]
            ratios.append(f"{rows['ours'][key] / min(others):.2f}" if others else "-")
        times = [f"{rows[name]['epoch_seconds']:.3g}" if name in rows else "-" for name in PEERS]
        cells.append([f"`{result['net']}`", str(result["batch_size"]), *times, *ratios])
    turns = len(record["results"][0]["peers"]["ours"]["epoch_seconds_of_each_turn"])
    note = (
        f"Seconds for an epoch of 60,000 examples, medians of {turns} interleaved turns, compiling "
        f"left out; {record['device']}, jax {record['jax']}; `{record['command']}`."
    )
    return tables.markdown(header, cells, note)


def main() -> None:
    """Measures and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default=jax.default_backend(), help="of the results' file")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each peer")
    parser.add_argument("--train-size", type=int, default=6144, help="examples of one timed turn")
    parser.add_argument("--nets", nargs="+", default=NETS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    options = parser.parse_args()
    jobs = [(net, batch_size) for net in options.nets for batch_size in options.batches]
    results = [
        measure(net, batch_size, options.train_size, options.repeats)
        for net, batch_size in tqdm(jobs, unit="row")
    ]
    record = {
        "command": shlex.join(["python", "-m", "experiments.speed", *sys.argv[1:]]),
        "device": provenance.device(),
        "jax": jax.__version__,
        "results": results,
    }
    tables.publish(f"speed-{options.name}", record, to_markdown)


if __name__ == "__main__":
    main()
