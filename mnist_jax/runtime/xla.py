"""Compilation: XLA's options, optimization barriers and the cache of compiled programs."""

import os
from pathlib import Path

import jax
import jaxlib
import platformdirs
from jax import lax

from mnist_jax.types import PyTree, UserError

OFF = "off"

# The options below have no documentation, and an option can make XLA abort the process. They are
# used only with releases of jaxlib on which every task and every shipped config has trained.
# Without them, on 0.10.2, training takes up to 1.7 times as long: experiments/compile_options.py.
TESTED = ("0.10.2", "0.12.0.1")

# XLA on a CPU drops optimization barriers before it fuses, and then recomputes a value in every
# operation that reads it. Its compiler of small loops, which must not see a barrier, is off too.
CPU_OPTIONS: dict[str, str | bool] = {
    "xla_disable_hlo_passes": "cse_barrier_expander,small-while-loop-hoisting"
}

# XLA hands convolutions to YNNPACK. If it gets most of a net as one operation, as in prediction, it
# is faster than Eigen; if it gets them one by one, as in training, it takes up to twice as long.
# For training it keeps only single matrix products, where it is the fastest.
CPU_TRAINING_OPTIONS: dict[str, str | bool] = {
    **CPU_OPTIONS,
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
}


def barrier(tree: PyTree) -> PyTree:
    """Return the same arrays behind an optimization barrier on a CPU: they are computed once.

    Without it XLA would fuse, and so repeat, their computation into every operation that reads
    them. On other platforms this is the identity.
    """
    return lax.platform_dependent(tree, cpu=lax.optimization_barrier, default=lambda tree: tree)


def has_options() -> bool:
    """Return whether programs get these options: on a CPU, with a tested release of jaxlib."""
    return jax.default_backend() == "cpu" and jaxlib.__version__ in TESTED


def compile_lowered(lowered: jax.stages.Lowered, *, predicts: bool = False) -> jax.stages.Compiled:
    """Compile `jit(f).lower(...)` with the fastest options.

    Args:
      lowered: the program.
      predicts: True if it applies one net without gradients, which needs other options.
    """
    if not has_options():
        return lowered.compile()
    return lowered.compile(compiler_options=CPU_OPTIONS if predicts else CPU_TRAINING_OPTIONS)


def enable_cache(directory: str | None = None) -> None:
    """Enable JAX's persistent compilation cache; call this before anything is compiled.

    Args:
      directory: for the compiled programs; None: $JAX_COMPILATION_CACHE_DIR, or the user's cache
        directory, if it can be written; "off": no cache. Write access to it allows running code in
        this process.

    Raises:
      UserError: the directory cannot be written.
    """
    if directory and directory != OFF and (reason := _unwritable(directory)):
        raise UserError(
            f"--compilation_cache={directory}: cannot be written ({reason}); give another "
            f"directory, or {OFF}"
        )
    configured = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    directory = directory or configured or _user_cache_dir()
    if directory == OFF:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    jax.config.update("jax_compilation_cache_dir", directory)
    # Cache small programs too: a start compiles a hundred of them.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _user_cache_dir() -> str:
    """Return the user's cache directory; `OFF` without a home directory that can be written."""
    try:
        directory = platformdirs.user_cache_dir("mnist_jax")
    except RuntimeError:
        return OFF
    return directory if Path(directory).is_absolute() and not _unwritable(directory) else OFF


def _unwritable(directory: str) -> str | None:
    """Make a directory; return the reason why nothing can be written there, None if it can."""
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror
    return None if os.access(directory, os.W_OK | os.X_OK) else "read-only"
