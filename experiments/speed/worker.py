"""A peer in its own process, which runs commands and waits in between.

    with worker.spawn(job, cache) as process:
        seconds = worker.ask(process, "train")["seconds"]

The worker reads a command a line from standard input, runs it and answers with a line of JSON:
"train" and "predict" with `seconds`, "memory" with `peak_rss_bytes` and `device_peak_bytes`. On
failure it answers with `failed` and the reason, and exits. A waiting worker costs no time.
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

from experiments.speed import peers
from experiments.timing import random_examples
from mnist_jax.runtime import provenance


class Failed(Exception):  # noqa: N818
    """A peer that is unavailable; the message is the reason, in one line."""


class Job(NamedTuple):
    """The job of a worker."""

    peer: str  # a name in `peers.PEERS`
    net: Mapping[str, Any]  # every field of a net, and the name of its family
    batch_size: int
    num_train: int  # a multiple of the batch size
    num_test: int = 10_000


@contextlib.contextmanager
def spawn(job: Job, cache: Path) -> Iterator[subprocess.Popen]:
    """Run a worker while the context is open, with its compilation cache in `cache`."""
    variables = {
        "JAX_COMPILATION_CACHE_DIR": f"{cache}/jax",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TORCHINDUCTOR_CACHE_DIR": f"{cache}/torch",
        # On a GPU, a process must leave memory to those that wait.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }
    if job.peer == "ours by core":
        variables["JAX_NUM_CPU_DEVICES"] = str(provenance.cores())
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.speed.worker", json.dumps(job)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | variables,
    )
    try:
        yield process
    finally:
        process.communicate()  # closes its input, which ends it


def ask(process: subprocess.Popen, word: str) -> dict[str, Any]:
    """Send a command to a worker and return its answer.

    Raises:
      Failed: the command failed, or the worker has exited.
    """
    assert process.stdin
    assert process.stdout
    with contextlib.suppress(BrokenPipeError):  # its reason may be in the output
        process.stdin.write(f"{word}\n")
        process.stdin.flush()
    line = process.stdout.readline()
    answer = json.loads(line) if line else {"failed": f"ended with exit code {process.wait()}"}
    if "failed" in answer:
        raise Failed(answer["failed"])
    return answer


def make(job: Job) -> peers.Peer:
    """Make the peer of a job; only here is its library imported."""
    images, labels = random_examples(job.num_train)
    task = peers.Task(
        net=job.net,
        batch_size=job.batch_size,
        train_images=images,
        train_labels=labels,
        test_images=random_examples(job.num_test)[0],
    )
    match job.peer:
        case "ours" | "ours by core":
            from experiments.speed.peers import ours

            return ours.make(task, by_core=job.peer == "ours by core")
        case "flax example":
            from experiments.speed.peers import flax_example

            return flax_example.make(task)
        case "pytorch" | "pytorch compiled":
            from experiments.speed.peers import pytorch

            return pytorch.make(task, compiled=job.peer == "pytorch compiled")
        case "keras" | "keras compiled":
            from experiments.speed.peers import keras

            return keras.make(task, compiled=job.peer == "keras compiled")
        case unknown:
            raise ValueError(unknown)


def main(job: Job) -> None:
    """Run the commands from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is not an answer

    def say(answer: Mapping[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    try:
        peer = make(job)
        for line in sys.stdin:
            say(_do(peer, line.strip()))
    except Exception as error:  # a library that is missing or does not work here
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
