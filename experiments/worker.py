"""A peer in a process of its own, which does what it is asked and waits in between.

    with worker.spawn(job, cache) as process:
        seconds = worker.ask(process, "train")["seconds"]

The worker reads a word a line on its standard input, does it, and answers with a line of JSON:
"train" and "predict" with `seconds`, "memory" with `peak_rss_bytes` and `device_peak_bytes`; or
with `failed` and the reason, and ends. Reading blocks: a peer that waits costs no time.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import peers
from mnist_jax.runtime import provenance


class Failed(Exception):  # noqa: N818
    """A peer that cannot be had here; the message is its reason, in one line."""


class Job(NamedTuple):
    """What a worker is started for."""

    peer: str  # a name in `peers.PEERS`
    net: Mapping[str, Any]  # the fields of a net in `nets.NETS`, and its name
    batch_size: int
    num_train: int  # a multiple of the batch size
    num_test: int = 10_000


@contextlib.contextmanager
def spawn(job: Job, cache: Path) -> Iterator[subprocess.Popen]:
    """A worker, from its start to its end; what it compiles is kept in the folder `cache`."""
    variables = {
        "JAX_COMPILATION_CACHE_DIR": f"{cache}/jax",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TORCHINDUCTOR_CACHE_DIR": f"{cache}/torch",
        # On a GPU, no process takes memory that it does not need from those that wait.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }
    if job.peer == "ours by core":
        variables["JAX_NUM_CPU_DEVICES"] = str(provenance.cores())
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.worker", json.dumps(job)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | variables,
    )
    try:
        yield process
    finally:
        process.communicate()  # closes its input, at which it ends


def ask(process: subprocess.Popen, word: str) -> dict[str, Any]:
    """What a worker answers to a word.

    Raises:
      Failed: it cannot do it, or has ended.
    """
    assert process.stdin
    assert process.stdout
    with contextlib.suppress(BrokenPipeError):  # it may have said why before it ended
        process.stdin.write(f"{word}\n")
        process.stdin.flush()
    line = process.stdout.readline()
    answer = json.loads(line) if line else {"failed": f"ended with exit code {process.wait()}"}
    if "failed" in answer:
        raise Failed(answer["failed"])
    return answer


def make(job: Job) -> peers.Peer:
    """The peer that a job names; its library is imported here and nowhere else."""
    rng = np.random.default_rng(0)  # what the pixels are does not change the time
    task = peers.Task(
        net=job.net,
        batch_size=job.batch_size,
        train_images=rng.integers(0, 256, (job.num_train, 28, 28, 1), np.uint8),
        train_labels=rng.integers(0, 10, job.num_train, np.int32),
        test_images=rng.integers(0, 256, (job.num_test, 28, 28, 1), np.uint8),
    )
    match job.peer:
        case "ours" | "ours by core":
            from experiments.peers import ours

            return ours.make(task, by_core=job.peer == "ours by core")
        case "flax example":
            from experiments.peers import flax_example

            return flax_example.make(task)
        case "pytorch" | "pytorch compiled":
            from experiments.peers import pytorch

            return pytorch.make(task, compiled=job.peer == "pytorch compiled")
        case "keras" | "keras compiled":
            from experiments.peers import keras

            return keras.make(task, compiled=job.peer == "keras compiled")
        case unknown:
            raise ValueError(unknown)


def main(job: Job) -> None:
    """Answers the words on standard input until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer

    def say(answer: Mapping[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    try:
        peer = make(job)
        for line in sys.stdin:
            say(_do(peer, line.strip()))
    except Exception as error:  # a library that is not installed, or cannot do it here
        say({"failed": f"{type(error).__name__}: {error}".splitlines()[0]})


def _do(peer: peers.Peer, word: str) -> dict[str, Any]:
    match word:
        case "train":
            return {"seconds": _seconds(peer.train)}
        case "predict":
            return {"seconds": _seconds(peer.predict)}
        case "memory":
            return {
                "peak_rss_bytes": provenance.peak_rss_bytes(),
                "device_peak_bytes": peer.device_peak_bytes(),
            }
        case unknown:
            raise ValueError(unknown)


def _seconds(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(Job(*json.loads(sys.argv[1])))
