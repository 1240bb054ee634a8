"""Jobs in background threads."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def start(jobs: Sequence[Callable[[], T]], threads: int) -> list[Future[T]]:
    """Start jobs in order, at most `threads` at a time; return a future for each.

    The threads are daemons: an interrupted process does not wait for them, as it would for those
    of a `ThreadPoolExecutor`.
    """
    futures: list[Future[T]] = [Future() for _ in jobs]
    todo: queue.SimpleQueue = queue.SimpleQueue()
    for pair in zip(jobs, futures, strict=True):
        todo.put(pair)

    def work() -> None:
        while True:
            try:
                job, future = todo.get_nowait()
            except queue.Empty:
                return
            try:
                future.set_result(job())
            except BaseException as error:  # raised again by future.result()
                future.set_exception(error)

    for _ in range(min(threads, len(jobs))):
        threading.Thread(target=work, daemon=True).start()
    return futures
