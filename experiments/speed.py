"""How fast is an epoch, side by side with PyTorch, Keras and the usual way of writing it in JAX?

    python -m experiments.speed [--name=cpu] [--repeats=5] [--nets ...] [--batches ...]

Same nets, batches, optimizer, data and machine. Each peer has a process of its own; they take turns
(ours, theirs, ours, ...), and who waits costs no time. Medians are over the turns, and ratios are
of medians. Each peer is started twice: with nothing kept from an earlier compilation, and with what
the first start left; the second start takes the turns. Needs `pip install -e '.[bench]'`; a peer
that cannot be had is left out, its reason in the record.
"""

import argparse
import contextlib
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from experiments import figures, gemm, speed_report, tables, worker
from experiments.peers import PEERS
from mnist_jax import config as configs
from mnist_jax import models, nets, provenance

NETS = ("mlp_512_256", "cnn_3x3", "cnn_5x5_3x3")
BATCHES = (32, 128, 512)
EPOCH = 60_000


class Start(NamedTuple):
    """A process up to the end of its first training turn and first prediction."""

    seconds_to_trained: float  # from before the process was there
    first_calls_seconds: float  # of training and of predicting, compiling included
    memory: Mapping[str, int | None]


def start(
    job: worker.Job, cache: Path, stack: contextlib.ExitStack
) -> tuple[subprocess.Popen, Start]:
    """A worker, until the stack is closed, and how its start went.

    Raises:
      worker.Failed: the peer cannot be had.
    """
    before = time.perf_counter()
    process = stack.enter_context(worker.spawn(job, cache))
    first_training = worker.ask(process, "train")["seconds"]
    to_trained = time.perf_counter() - before
    first_calls = first_training + worker.ask(process, "predict")["seconds"]
    return process, Start(to_trained, first_calls, worker.ask(process, "memory"))


def measure(net: str, batch_size: int, num_train: int, repeats: int) -> dict[str, Any]:
    """Every peer's times for an epoch and for 10,000 predictions, taking turns.

    Args:
      net: a name in `nets.NETS`.
      batch_size: of training.
      num_train: examples of one timed turn, rounded down to whole batches.
      repeats: turns.
    """
    fields = {"name": net, **nets.fields({"name": net})}
    num_train = num_train // batch_size * batch_size
    starts: dict[str, tuple[Start, Start]] = {}
    turns: dict[str, list[tuple[float, float]]] = {}
    failed: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        processes = {}
        for peer in PEERS:
            job = worker.Job(peer, fields, batch_size, num_train)
            cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            try:
                with contextlib.ExitStack() as alone:
                    _, cold = start(job, cache, alone)
                processes[peer], cached = start(job, cache, stack)
                starts[peer], turns[peer] = (cold, cached), []
            except worker.Failed as error:
                failed[peer] = str(error)
        for _ in range(repeats):
            for peer, process in processes.items():
                times = (worker.ask(process, word)["seconds"] for word in ("train", "predict"))
                turns[peer].append((next(times), next(times)))
    rows = {peer: row(turns[peer], starts[peer], num_train, flops(net)) for peer in turns}
    return {"net": net, "batch_size": batch_size, "peers": rows, "failed": failed}


def row(
    turns: Sequence[tuple[float, float]],
    starts: tuple[Start, Start],
    num_train: int,
    flops_per_example: tuple[int, int],
) -> dict[str, Any]:
    """A peer's figures.

    Args:
      turns: seconds of training on `num_train` examples and of predicting 10,000, of each turn.
      starts: the one that had to compile everything, and the one that found that done.
      num_train: examples of a turn.
      flops_per_example: floating-point operations to train on one and to predict one.
    """
    train, predict = (statistics.median(times) for times in zip(*turns, strict=True))
    train_flops, predict_flops = flops_per_example
    (cold, cached), scale = starts, EPOCH / num_train

    def compiling(start: Start) -> float:
        return max(start.first_calls_seconds - train - predict, 0.0)

    def to_first_epoch(start: Start) -> float:
        return start.seconds_to_trained + train * (scale - 1)

    return {
        "epoch_seconds": train * scale,
        "epoch_seconds_of_each_turn": [turn[0] * scale for turn in turns],
        "predict_10000_seconds": predict,
        "examples_per_second": num_train / train,
        "compile_seconds": compiling(cold),
        "compile_seconds_cached": compiling(cached),
        "start_to_first_epoch_seconds": to_first_epoch(cold),
        "start_to_first_epoch_seconds_cached": to_first_epoch(cached),
        **{
            key: max(start.memory[key] or 0 for start in starts) or None
            for key in ("peak_rss_bytes", "device_peak_bytes")
        },
        "train_gflop_per_second": num_train * train_flops / train / 1e9,
        "predict_gflop_per_second": 10_000 * predict_flops / predict / 1e9,
    }


def flops(net: str) -> tuple[int, int]:
    """Floating-point operations of the net's products, for an example: to train, to predict.

    Training takes each layer's product three times, forward, for the gradient of its weights and
    for that of its input, which the first layer does not need.
    """
    config = configs.default().model
    config.name = net
    layers = [layer.flops for layer in models.build(config, 10).layers() if layer.flops]
    return 3 * sum(layers) - layers[0], sum(layers)


def main() -> None:
    """Measures and writes the results."""
    # On a GPU, this process must not take the memory that the workers need.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default=jax.default_backend(), help="of the results' files")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each peer")
    parser.add_argument("--train-size", type=int, default=6144, help="examples of one timed turn")
    parser.add_argument("--nets", nargs="+", default=NETS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    options = parser.parse_args()
    jobs = [(net, batch_size) for net in options.nets for batch_size in options.batches]
    record = {
        "command": shlex.join(["python", "-m", "experiments.speed", *sys.argv[1:]]),
        "device": provenance.device(),
        "jax": jax.__version__,
        "gemm_gflop_per_second": gemm.peak(),
        "results": [
            measure(net, batch_size, options.train_size, options.repeats)
            for net, batch_size in tqdm(jobs, unit="row")
        ],
    }
    name = f"speed-{options.name}"
    tables.publish(name, record, speed_report.TABLES)
    figures.save(speed_report.figure(record), name)


if __name__ == "__main__":
    main()
