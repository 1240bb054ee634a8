"""How fast is an epoch compared with PyTorch, Keras and the usual way of writing it in JAX?

    python -m experiments.speed [--name=cpu] [--repeats=5] [--nets ...] [--batches ...]

Same nets, batches, optimizer, data and machine. Each peer has its own process; their turns are
interleaved, starting with a different peer each time, and waiting costs no time. Medians are over
the turns, and so are ratios, each of two neighbouring turns. Each peer is started twice: with an
empty compilation cache, and with the cache of the first start; the second start takes the turns.
Needs `pip install -e '.[bench]'`; an unavailable peer is left out, with its reason in the record.
"""

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
from experiments.speed.peers import GPU_PRECISION, PEERS
from experiments.timing import EPOCH
from mnist_jax import config as configs
from mnist_jax.models import networks, registry

NETS = ("mlp_512_256", "cnn_3x3", "cnn_5x5_3x3")
BATCHES = (32, 128, 512)
PREDICTIONS = 4  # in a turn, since they are short
TURN = 1.5e11  # floating-point operations of a turn, at most an epoch; shorter turns are noisy


class Start(NamedTuple):
    """Seconds of a worker's first training and prediction, including compilation."""

    train_seconds: float
    predict_seconds: float
    seconds_to_trained: float  # from before the process started


def seconds(process: subprocess.Popen, word: str) -> float:
    """Return the seconds that a worker takes for a command.

    Raises:
      worker.Failed: the peer is unavailable.
    """
    return worker.ask(process, word)["seconds"]


def start(
    job: worker.Job, cache: Path, stack: contextlib.ExitStack
) -> tuple[subprocess.Popen, Start]:
    """Start a worker, which the stack closes, and measure its start.

    Raises:
      worker.Failed: the peer is unavailable.
    """
    before = time.perf_counter()
    process = stack.enter_context(worker.spawn(job, cache))
    train = seconds(process, "train")
    trained = time.perf_counter() - before
    return process, Start(train, seconds(process, "predict"), trained)


def measure(net: str, batch_size: int, num_train: int, repeats: int) -> dict[str, Any]:
    """Measure all peers in interleaved turns.

    Args:
      net: a key of `study.MODELS`.
      batch_size: of training.
      num_train: examples of one turn, rounded down to whole batches.
      repeats: turns of training; `PREDICTIONS` turns of prediction follow each.

    Raises:
      worker.Failed: ours failed; failures of the others are in the result.
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
            with recording(failed, peer):
                with contextlib.ExitStack() as alone:
                    process, cold = start(job, cache, alone)
                    memory[peer] = [worker.ask(process, "memory")]
                processes[peer], cached = start(job, cache, stack)
                starts[peer] = cold, cached
        for i in range(repeats):
            for word in ("train", *["predict"] * PREDICTIONS):
                running = [peer for peer in PEERS if peer not in failed]
                first = i % len(running)
                for peer in (*running[first:], *running[:first]):
                    with recording(failed, peer):
                        turns[peer][word].append(seconds(processes[peer], word))
        rows = {}
        for peer in PEERS:
            if peer in failed:
                continue
            with recording(failed, peer):
                memory[peer].append(worker.ask(processes[peer], "memory"))
                measured = turns[peer], *starts[peer], memory[peer]
                rows[peer] = row(*measured, num_train, flops(net))
    facts = {"net": net, "batch_size": batch_size, "num_train": num_train}
    return {**facts, "peers": rows, "failed": failed}


@contextlib.contextmanager
def recording(failed: dict[str, str], peer: str) -> Iterator[None]:
    """Record the reason of a peer's failure; a failure of ours is raised."""
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
    """Compute the figures of a peer.

    Args:
      turns: seconds of each "train" and "predict" turn, without the starts.
      cold: the start with an empty compilation cache.
      cached: the start with the cache of the first.
      memory: peak memory of the process of each start.
      num_train: training examples of a turn.
      flops_per_example: floating-point operations of training and of prediction.
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
    """Return the floating-point operations of training on an example and of predicting it.

    Only products count. Training computes each layer's product three times: forward, gradient of
    the weights and gradient of the input, except for the input of the first layer.
    """
    config = configs.default().model
    config.update(study.MODELS[net])
    layers = [layer.flops for layer in networks.build(config, 10).layers() if layer.flops]
    return 3 * sum(layers) - layers[0], sum(layers)


def examples_of_a_turn(net: str, at_least: int) -> int:
    """Return the examples of a turn, more for a faster net, up to an epoch."""
    return max(at_least, min(EPOCH, int(TURN / flops(net)[0])))


def main() -> None:
    """Measure and write the results."""
    # On a GPU, this process must not take the memory that the workers need.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    parser = tables.parser("speed", __doc__)
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
        "gpu_matmul_precision": GPU_PRECISION,
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
