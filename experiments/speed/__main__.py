"""How fast is an epoch, side by side with PyTorch, Keras and the usual way of writing it in JAX?

    python -m experiments.speed [--name=cpu] [--repeats=5] [--nets ...] [--batches ...]

Same nets, batches, optimizer, data and machine. Each peer has a process of its own; they take turns
(ours, theirs, ours, ...; another one first each time), and who waits costs no time. Medians are
over the turns, and so are ratios, each of two turns that are neighbours. Each peer is started
twice: with nothing kept from an earlier compilation, and with what the first start left; the second
start takes the turns. Needs `pip install -e '.[bench]'`; a peer that cannot be had is left out, its
reason in the record.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from configs import study
from experiments import figures, gemm, tables
from experiments.speed import report, worker
from experiments.speed.peers import PEERS
from experiments.timing import EPOCH
from mnist_jax import config as configs
from mnist_jax.models import networks, registry

NETS = ("mlp_512_256", "cnn_3x3", "cnn_5x5_3x3")
BATCHES = (32, 128, 512)
PREDICTIONS = 4  # a turn: they are short
TURN = 1.5e11  # floating-point operations, if not a whole epoch: less is over too soon to be timed


class Start(NamedTuple):
    """A worker's first training and predicting, compiling included."""

    train_seconds: float
    predict_seconds: float
    seconds_to_trained: float  # from before there was a process to the end of the training


def seconds(process: subprocess.Popen, word: str) -> float:
    """How long a worker takes to do something.

    Raises:
      worker.Failed: the peer cannot be had.
    """
    return worker.ask(process, word)["seconds"]


def start(
    job: worker.Job, cache: Path, stack: contextlib.ExitStack
) -> tuple[subprocess.Popen, Start]:
    """A worker, until the stack is closed, and how its start went.

    Raises:
      worker.Failed: the peer cannot be had.
    """
    before = time.perf_counter()
    process = stack.enter_context(worker.spawn(job, cache))
    train = seconds(process, "train")
    trained = time.perf_counter() - before
    return process, Start(train, seconds(process, "predict"), trained)


def measure(net: str, batch_size: int, num_train: int, repeats: int) -> dict[str, Any]:
    """Every peer's figures, from turns taken one after the other.

    Args:
      net: a key of `study.MODELS`.
      batch_size: of training.
      num_train: examples of one turn, rounded down to whole batches.
      repeats: turns of training; of predicting there are `PREDICTIONS` times as many.

    Raises:
      worker.Failed: we ourselves cannot be had; of others, the reason is in the result.
    """
    fields = study.MODELS[net] | registry.fields(study.MODELS[net])
    num_train = num_train // batch_size * batch_size
    processes: dict[str, subprocess.Popen] = {}
    starts: dict[str, tuple[Start, Start]] = {}
    memory: dict[str, list[dict[str, int | None]]] = {}
    turns: dict[str, dict[str, list[float]]] = {
        peer: {"train": [], "predict": []} for peer in PEERS
    }
    failed: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        for peer in PEERS:
            job = worker.Job(peer, fields, batch_size, num_train)
            cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            with noting(failed, peer):
                with contextlib.ExitStack() as alone:
                    process, cold = start(job, cache, alone)
                    memory[peer] = [worker.ask(process, "memory")]
                processes[peer], cached = start(job, cache, stack)
                starts[peer] = cold, cached
        for i in range(repeats):
            for word in ("train", *["predict"] * PREDICTIONS):
                there = [peer for peer in PEERS if peer not in failed]
                first = i % len(there)
                for peer in (*there[first:], *there[:first]):
                    with noting(failed, peer):
                        turns[peer][word].append(seconds(processes[peer], word))
        rows = {}
        for peer in PEERS:
            if peer in failed:
                continue
            with noting(failed, peer):
                memory[peer].append(worker.ask(processes[peer], "memory"))
                told = turns[peer], *starts[peer], memory[peer]
                rows[peer] = row(*told, num_train, flops(net))
    facts = {"net": net, "batch_size": batch_size, "num_train": num_train}
    return {**facts, "peers": rows, "failed": failed}


@contextlib.contextmanager
def noting(failed: dict[str, str], peer: str) -> Iterator[None]:
    """Notes the reason why a peer fails; that we fail ourselves is not noted but raised."""
    try:
        yield
    except worker.Failed as error:
        if peer == "ours":
            raise
        failed[peer] = str(error)


def row(
    turns: Mapping[str, Sequence[float]],
    cold: Start,
    cached: Start,
    memory: Sequence[Mapping[str, int | None]],
    num_train: int,
    flops_per_example: tuple[int, int],
) -> dict[str, Any]:
    """A peer's figures.

    Args:
      turns: seconds of each to "train" and to "predict", those of the starts left out.
      cold: the start that had to compile everything.
      cached: the start that found what the first had compiled.
      memory: the most that the process of each start has held.
      num_train: training examples of a turn.
      flops_per_example: floating-point operations to train on one and to predict one.
    """
    train, predict = (statistics.median(turns[word]) for word in ("train", "predict"))
    train_flops, predict_flops = flops_per_example
    scale = EPOCH / num_train

    def compiling(first: Start) -> float:
        return max(first.train_seconds + first.predict_seconds - train - predict, 0.0)

    def most(kind: str) -> int | None:
        return max(held[kind] or 0 for held in memory) or None

    return {
        "epoch_seconds": train * scale,
        "epoch_seconds_of_each_turn": [turn * scale for turn in turns["train"]],
        "predict_10000_seconds": predict,
        "predict_10000_seconds_of_each_turn": list(turns["predict"]),
        "examples_per_second": num_train / train,
        "compile_seconds": compiling(cold),
        "compile_seconds_cached": compiling(cached),
        # Measured with the examples of a turn; the rest of the epoch is added.
        "start_to_first_epoch_seconds": cold.seconds_to_trained + train * (scale - 1),
        "start_to_first_epoch_seconds_cached": cached.seconds_to_trained + train * (scale - 1),
        "peak_rss_bytes": most("peak_rss_bytes"),
        "device_peak_bytes": most("device_peak_bytes"),
        "train_gflop_per_second": num_train * train_flops / train / 1e9,
        "predict_gflop_per_second": 10_000 * predict_flops / predict / 1e9,
    }


def flops(net: str) -> tuple[int, int]:
    """Floating-point operations of the net's products, for an example: to train, to predict.

    Training takes each layer's product three times, forward, for the gradient of its weights and
    for that of its input, which the first layer does not need.
    """
    config = configs.default().model
    config.update(study.MODELS[net])
    layers = [layer.flops for layer in networks.build(config, 10).layers() if layer.flops]
    return 3 * sum(layers) - layers[0], sum(layers)


def examples_of_a_turn(net: str, at_least: int) -> int:
    """More of a net that is quicker, up to an epoch, so that a turn is long enough to be timed."""
    return max(at_least, min(EPOCH, int(TURN / flops(net)[0])))


def main() -> None:
    """Measures and writes the results."""
    # On a GPU, this process must not take the memory that the workers need.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default=jax.default_backend(), help="of the results' files")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each peer")
    parser.add_argument("--train-size", type=int, default=6144, help="least examples of a turn")
    parser.add_argument("--nets", nargs="+", choices=study.MODELS, default=NETS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    options = parser.parse_args()
    jobs = [(net, batch_size) for net in options.nets for batch_size in options.batches]
    record = {
        **tables.origin("experiments.speed"),
        "gemm_gflop_per_second": gemm.peak(),
        "results": [
            measure(net, batch_size, examples_of_a_turn(net, options.train_size), options.repeats)
            for net, batch_size in tqdm(jobs, unit="row")
        ],
    }
    name = f"speed-{options.name}"
    tables.publish(name, record, report.TABLES)
    figures.save(report.figure(record), name)


if __name__ == "__main__":
    main()
