"""Several processes as one run: how they find each other, and what the first does for all.

They run the same programs in the same order, for these meet in their collectives. The disk and the
terminal are the first one's: `from_first` hands what it read, or the mistake it met, to the others.
"""

import pickle
import socket
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from mnist_jax.types import UserError

T = TypeVar("T")

# How long a process that ends waits for the others. They end together, unless one has crashed or
# hangs; JAX then kills all that are left.
_SHUTDOWN_SECONDS = 30


def start(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the other processes; to be called before anything else of JAX.

    Args:
      coordinator: host:port, the same in all processes, at which the first can be reached.
      num_processes: how many there are.
      process_id: which one this is; 0 is the first.
      With none of these the cluster's environment says it: Slurm, Open MPI, TPU pods, Kubernetes.

    Raises:
      UserError: the port is taken, or the environment is of no such cluster. (Of processes that do
        not come within 5 minutes JAX itself makes an end.)
    """
    if coordinator and process_id == 0:
        _check_port(coordinator)
    # It would take SIGTERM for itself, and wait for all processes in each of orbax's saves.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, shutdown_timeout_seconds=_SHUTDOWN_SECONDS
        )
    except (RuntimeError, ValueError) as error:
        if coordinator:
            raise
        reason = " ".join(str(error).split())
        raise UserError(
            f"--distributed: no Slurm, Open MPI, TPU pod or Kubernetes is found ({reason}); give "
            "--coordinator=HOST:PORT --num_processes=N --process_id=I"
        ) from error


def _check_port(coordinator: str) -> None:
    """Whether the first process can listen there: where it cannot, JAX may end in a crash."""
    try:
        socket.create_server(("", int(coordinator.rpartition(":")[2]))).close()
    except OSError as error:
        why = error.strerror
        raise UserError(
            f"--coordinator={coordinator}: cannot listen there ({why}); take another port"
        ) from error


def is_first() -> bool:
    """Whether this process is the one that reads, writes and prints."""
    return jax.process_index() == 0


def from_first(action: Callable[[], T]) -> T:
    """Has the first process act; returns what came of it, or raises its UserError, in all.

    Args:
      action: called in the first process alone; what it returns can be pickled.
    """
    if jax.process_count() == 1:
        return action()
    outcome: Any = None
    if is_first():
        try:
            outcome = action()
        except UserError as error:
            outcome = error
    outcome = _broadcast(outcome)
    if isinstance(outcome, UserError):
        raise outcome
    return outcome


def largest(number: int) -> int:
    """The largest of the numbers, of 32 bits, that the processes have here."""
    return int(multihost_utils.process_allgather(np.int32(number)).max())


def _broadcast(value: Any) -> Any:
    """The first process's value in all."""
    packed = np.frombuffer(pickle.dumps(value), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(packed))))
    # Powers of two, because each length compiles a program of its own.
    padded = np.zeros(1 << size.bit_length(), np.uint8)
    if is_first():
        padded[:size] = packed
    received = multihost_utils.broadcast_one_to_all(padded)
    return value if is_first() else pickle.loads(received[:size].tobytes())
