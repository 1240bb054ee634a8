"""Jobs in background threads: their order, results, exceptions and number at a time."""

import subprocess
import sys
import threading
import time

import pytest

from mnist_jax.runtime import background


def test_results_are_in_the_order_of_the_jobs():
    """Also where a later job ends first."""
    second_is_done = threading.Event()

    def first():
        assert second_is_done.wait(10)
        return "first"

    def second():
        second_is_done.set()
        return "second"

    futures = background.start([first, second], threads=2)
    assert [future.result(10) for future in futures] == ["first", "second"]


@pytest.mark.parametrize("threads", [1, 2, 3, 20])
def test_jobs_start_in_order_and_at_most_so_many_run_at_a_time(threads):
    lock, started, running, most = threading.Lock(), [], 0, 0

    def job(number):
        nonlocal running, most
        with lock:
            started.append(number)
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return number

    jobs = [lambda number=number: job(number) for number in range(10)]
    futures = background.start(jobs, threads)
    assert [future.result(10) for future in futures] == [*range(10)]
    assert most <= threads
    if threads == 1:
        assert started == [*range(10)]
    else:  # threads take jobs in order; the first line of a job may come in another
        assert sorted(started) == [*range(10)]


def test_so_many_run_at_the_same_time():
    """Three jobs that wait for each other."""
    together = threading.Barrier(3, timeout=10)
    futures = background.start([together.wait] * 3, threads=3)
    assert sorted(future.result(10) for future in futures) == [0, 1, 2]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_exception_is_raised_by_its_future_and_the_other_jobs_run(error):
    def fail():
        raise error

    before, failed, after = background.start([lambda: 1, fail, lambda: 2], threads=1)
    assert (before.result(10), after.result(10)) == (1, 2)
    with pytest.raises(type(error)) as raised:
        failed.result(10)
    assert raised.value is error


def test_threads_are_daemons_and_end_with_the_jobs():
    threads = []
    futures = background.start([lambda: threads.append(threading.current_thread())], threads=5)
    futures[0].result(10)
    (thread,) = threads
    assert thread.daemon
    thread.join(10)
    assert not thread.is_alive()


def test_a_process_does_not_wait_for_its_jobs():
    code = """
import time
from mnist_jax.runtime import background
background.start([lambda: time.sleep(600)], threads=1)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_no_jobs():
    assert background.start([], threads=2) == []
