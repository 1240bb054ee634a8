"""Compiled programs kept on disk, so that the next start finds them instead of compiling them."""

import jax
import platformdirs

OFF = "off"


def enable(directory: str | None = None) -> None:
    """Turns JAX's persistent compilation cache on; to be called before anything is compiled.

    Args:
      directory: where the programs are kept; None: where $JAX_COMPILATION_CACHE_DIR says, else in
        the user's cache directory; "off": nowhere. Whoever can write there can run code here.
    """
    if directory == OFF:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if directory or not jax.config.jax_compilation_cache_dir:
        directory = directory or platformdirs.user_cache_dir("mnist_jax")
        jax.config.update("jax_compilation_cache_dir", directory)
    # Small programs too: a start has a hundred of them.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
