"""Shared fixtures. Strict numerics everywhere: no implicit dtype or rank promotion."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Accelerators multiply float32 in fewer bits by default; oracles do not.
jax.config.update("jax_default_matmul_precision", "highest")

# Every annotated shape and dtype of the package is checked at run time, in every test.
install_import_hook("mnist_jax", "beartype.beartype")
