"""Processes that have several devices, and several processes of one run."""

import os
import re
import socket

import forks
import pytest
from tiny_runs import KEEP

CLUSTERS = ("SLURM_", "OMPI_", "KUBERNETES_", "TPU_", "JAX_COORDINATOR", "JAX_LOCAL")


def devices(count):
    """Return the environment of a process with `count` devices."""
    # LLVM's part of compiling takes long, and does not touch what is asked here.
    flags = f"--xla_force_host_platform_device_count={count} --xla_backend_optimization_level=0"
    flags = f"{os.environ['XLA_FLAGS']} {flags}"
    strict = {"JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise"}
    return {**os.environ, **strict, "XLA_FLAGS": flags}


def free_port():
    with socket.socket() as one:
        one.bind(("", 0))
        return one.getsockname()[1]


# Gloo prints this from several threads at once: part by part, so that lines may be mixed.
CONNECTED = (
    r"(\[Gloo\] Rank | is connected to | peer ranks\. |"
    r"Expected number of connected peer ranks is : |\d|\s)*"
)

COMMAND = ("-m", "mnist_jax.main")


def start(folder, argv, env, program=COMMAND):
    """The command in a process of its own, with two devices and on no cluster."""
    alone = {k: v for k, v in devices(2).items() if not k.startswith(CLUSTERS)}
    env = {
        **{name.upper(): str(value) for name, value in KEEP.items()},
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        **alone,
        **env,
    }
    return forks.Process([*program, *argv], folder, env)


def _needs_a_host_name():
    try:
        socket.getaddrinfo(socket.gethostname(), None)
    except OSError:
        pytest.skip("the name of this machine does not resolve, and Gloo connects by it")


def start_two(folder, *argv, programs=(COMMAND, COMMAND)):
    """Two processes for one run, by flags."""
    _needs_a_host_name()
    together = [f"--coordinator=localhost:{free_port()}", "--num_processes=2"]
    return [
        start(folder, [*argv, *together, f"--process_id={i}"], {}, program)
        for i, program in enumerate(programs)
    ]


def start_two_by_slurm(folder, *argv):
    """As Slurm would start them."""
    _needs_a_host_name()
    env = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2", "SLURM_STEP_NODELIST": "localhost"}
    env["JAX_COORDINATOR_PORT"] = str(free_port())
    own = [{"SLURM_PROCID": f"{i}", "SLURM_LOCALID": f"{i}"} for i in range(2)]
    return [start(folder, [*argv, "--distributed"], env | mine) for mine in own]


def outcome(process):
    """Exit code, what it printed, and errors; without what XLA says of how it is connected."""
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    ours = [line for line in out.splitlines(True) if not re.fullmatch(CONNECTED, line)]
    return process.returncode, "".join(ours), err
