"""Several processes as one run: start-up, and actions of the first process for all.

All processes run the same programs in the same order, because these synchronize in collectives.
Only the first process uses the disk and the terminal: `on_first_process` broadcasts its result, or
its user error, to the others.
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

# Time that an ending process waits for the others. They end together unless one has crashed or
# hangs; then JAX kills the rest.
_SHUTDOWN_SECONDS = 30


def start(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Connect to the other processes; call this before anything else of JAX.

    Without arguments they are read from the cluster's environment: Slurm, Open MPI, TPU pods or
    Kubernetes.

    Args:
      coordinator: host:port of the first process, the same in all processes.
      num_processes: their number.
      process_id: of this process; 0 is the first.

    Raises:
      UserError: the port is taken, or no such cluster is found. (JAX itself stops after 5 minutes
        if processes are missing.)
    """
    if coordinator and process_id == 0:
        _check_port(coordinator)
    # It would catch SIGTERM, and wait for all processes in each save of Orbax.
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
    """Check that the first process can listen on the port; otherwise JAX may crash."""
    try:
        socket.create_server(("", int(coordinator.rpartition(":")[2]))).close()
    except OSError as error:
        why = error.strerror
        raise UserError(
            f"--coordinator={coordinator}: cannot listen there ({why}); take another port"
        ) from error


def is_first() -> bool:
    """Return True in the process that reads, writes and prints."""
    return jax.process_index() == 0


def on_first_process(action: Callable[[], T]) -> T:
    """Run `action` in the first process; return its result, or raise its UserError, in all.

    Args:
      action: called only in the first process; its result can be pickled.
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


def max_over_processes(number: int) -> int:
    """Return the largest of the processes' numbers, of 32 bits."""
    return int(multihost_utils.process_allgather(np.int32(number)).max())


def _broadcast(value: Any) -> Any:
    """Return the first process's value in all."""
    packed = np.frombuffer(pickle.dumps(value), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(packed))))
    # Padded to a power of two, because each length compiles its own program.
    padded = np.zeros(1 << size.bit_length(), np.uint8)
    if is_first():
        padded[:size] = packed
    received = multihost_utils.broadcast_one_to_all(padded)
    return value if is_first() else pickle.loads(received[:size].tobytes())
