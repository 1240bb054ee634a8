"""Commands in processes of their own, forked from one that has imported the libraries.

Importing what a run needs takes seconds. Each test worker starts one parent process that has done
so; the parent initialises no JAX backend and starts no thread. A command forked from it has its own
arguments, folder, environment, streams and exit code, and ends as Python ends. Tests of imports and
of variables that are read on import start a new Python instead.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
IMPORTED = (  # by the parent
    *("jax.numpy", "matplotlib.figure", "orbax.checkpoint", "scipy.special", "sklearn.metrics"),
    *("mnist_jax.cli.commands", "mnist_jax.predict.classifier"),
)
_ENVIRONMENT = dict(os.environ)  # as no test has changed it
WITHOUT_PAGES = "MNIST_JAX_TESTS_WITHOUT_PAGES"  # if set, commands write an empty page
EMPTY_PAGE = "<!doctype html>"


class Process:
    """A command in the background, with the part of `subprocess.Popen` that the tests use."""

    def __init__(self, argv: Sequence[str | Path], cwd: Path, env: Mapping[str, str], merge=False):
        """Start it.

        Args:
          argv: what follows `python`: maybe "-W", "error"; then "-m", a module and its arguments,
            or "-c", code and its arguments.
          cwd: the working directory.
          env: all of its environment.
          merge: True if errors go to the standard output.
        """
        request = {"argv": [str(arg) for arg in argv], "cwd": str(cwd), "env": dict(env)}
        self._control, theirs = socket.socketpair()
        out, out_end = os.pipe()
        err, err_end = (None, out_end) if merge else os.pipe()
        socket.send_fds(
            _parent(), [json.dumps(request).encode()], [theirs.fileno(), out_end, err_end]
        )
        theirs.close()
        for end in {out_end, err_end}:
            os.close(end)
        self.stdout = os.fdopen(out, encoding="utf-8")
        self.stderr = None if err is None else os.fdopen(err, encoding="utf-8")
        self._pid = int.from_bytes(self._control.recv(4))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        with contextlib.suppress(BlockingIOError):
            self._receive(socket.MSG_DONTWAIT)
        return self.returncode

    def wait(self) -> int:
        """Return the exit code when it has ended."""
        self._receive()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str | None]:
        """Read all output and errors; a process that takes longer, in seconds, is killed."""
        limit = threading.Timer(timeout or 1e6, self.kill)
        limit.daemon = True
        limit.start()
        errors: list[str] = []
        reader = threading.Thread(target=lambda: errors.append(self.stderr.read()))
        if self.stderr:
            reader.start()
        out = self.stdout.read()
        if self.stderr:
            reader.join()
            self.stderr.close()
        self.stdout.close()
        self.wait()
        limit.cancel()
        return out, errors[0] if errors else None

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self._pid, number)

    def kill(self) -> None:
        """Kill it, if it still runs."""
        self.send_signal(signal.SIGKILL)

    def _receive(self, flags: int = 0) -> None:
        if self.returncode is None:
            status = int.from_bytes(self._control.recv(4, flags))
            self.returncode = os.waitstatus_to_exitcode(status)
            self._control.close()


def run(
    argv: Sequence[str | Path], cwd: Path, env: Mapping[str, str], merge: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with the arguments of `Process`."""
    process = Process(argv, cwd, env, merge)
    out, err = process.communicate()
    return subprocess.CompletedProcess(argv, process.wait(), out, err)


@functools.cache
def _parent() -> socket.socket:
    """Start the parent of all forks of this process; it ends with it."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            env={**_ENVIRONMENT, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    atexit.register(process.wait)
    atexit.register(ours.close)  # first
    return ours


# --- the parent -----------------------------------------------------------------------------------


def _serve(requests: socket.socket) -> dict | None:
    """Fork a process for each request; return in it with the request, else None at the end."""
    while True:
        message, fds, _, _ = socket.recv_fds(requests, 1 << 20, 3)
        if not message:
            return None
        if _fork() == 0:
            requests.close()
            return _supervise(json.loads(message), *fds)
        for fd in fds:
            os.close(fd)


def _supervise(request: dict, control_fd: int, out: int, err: int) -> dict:
    """Fork once more: return in the child; report its process ID and exit status to the test."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    control = socket.socket(fileno=control_fd)
    pid = _fork()
    if pid:
        os.close(out)
        os.close(err)
        os.close(1)
        control.sendall(pid.to_bytes(4))
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(OSError):  # the test has ended
            control.sendall(status.to_bytes(4))
        os._exit(0)
    control.close()
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    if err != out:
        os.close(err)
    return request


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of JAX, about threads
        return os.fork()


def _to_bool(value: str) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[value.lower()]


def _become(request: dict) -> None:
    """Do what `python` with these arguments does."""
    import jax

    os.chdir(request["cwd"])
    for name, value in request["env"].items() - os.environ.items():
        option = name.lower()
        if name.startswith("JAX_") and option in jax.config.values:
            kind = type(jax.config.values[option])
            convert = {bool: _to_bool, type(None): str}.get(kind, kind)
            jax.config.update(option, convert(value))
    os.environ.clear()
    os.environ.update(request["env"])
    if WITHOUT_PAGES in os.environ:
        from mnist_jax.report import run_page

        run_page.render = lambda *args, **kwargs: EMPTY_PAGE
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, errors="backslashreplace")
    argv = request["argv"]
    if argv[:2] == ["-W", "error"]:
        warnings.simplefilter("error")
        argv = argv[2:]
    option, program, *sys.argv[1:] = argv
    sys.path.insert(0, "")
    if option == "-c":
        sys.argv[0] = "-c"
        exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    gc.collect()
    gc.freeze()  # the forks share the memory of what is imported
    if request := _serve(socket.socket(fileno=int(sys.argv[1]))):
        _become(request)
