"""Shared fixtures. Strict numerics everywhere: no implicit dtype or rank promotion."""

import gc
import os
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the tests' time went into optimising programs that then ran once. `XLA_FLAGS= make pytest`
# tests them as users' machines compile them.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1",
)
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as `experiments.study` does
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # one for all workers and the commands they run
    _programs = tempfile.TemporaryDirectory(prefix="mnist_jax-programs-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _programs.name

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Accelerators multiply float32 in fewer bits by default; oracles do not.
jax.config.update("jax_default_matmul_precision", "highest")

# Every annotated shape and dtype of the package is checked at run time, in every test.
install_import_hook("mnist_jax", "beartype.beartype")


@pytest.fixture(autouse=True, scope="module")
def _programs_are_not_searched_for_garbage():
    """What a test file leaves, JAX's traces above all, is millions of objects that stay."""
    yield
    gc.freeze()
