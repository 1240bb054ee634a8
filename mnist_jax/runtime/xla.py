"""How programs are compiled: with which of XLA's options, and where they are kept."""

import jax
import platformdirs

OFF = "off"

# XLA on a CPU forgets `lax.optimization_barrier` before it fuses, and then computes again, in every
# operation that reads it, what was to be computed once.
_CPU_OPTIONS: dict[str, str | bool] = {"xla_disable_hlo_passes": "cse_barrier_expander"}

# XLA hands convolutions to YNNPACK. Where it can take most of a net as one operation, as in
# predicting, it is quicker than Eigen; where it gets them one by one, as in training, it takes up
# to twice as long. There it keeps single matrix products, at which it is the quickest.
_CPU_TRAINING_OPTIONS: dict[str, str | bool] = {
    **_CPU_OPTIONS,
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
}


def compile_lowered(lowered: jax.stages.Lowered, *, predicts: bool = False) -> jax.stages.Compiled:
    """Compiles `jit(f).lower(...)` for speed: what `.compile()` does, with our options.

    Args:
      lowered: the program.
      predicts: whether it applies one net and takes no gradients, for which other options are best.
    """
    if jax.default_backend() != "cpu":
        return lowered.compile()
    options = _CPU_OPTIONS if predicts else _CPU_TRAINING_OPTIONS
    while True:
        try:
            return lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:  # experiments that a jaxlib may lack
            known = {name: options[name] for name in options if name not in str(error)}
            if "No such compile option" not in str(error) or known == options:
                raise
            options = known


def enable_cache(directory: str | None = None) -> None:
    """Turns JAX's persistent compilation cache on; to be called before anything is compiled.

    Args:
      directory: where the programs are kept; None: where $JAX_COMPILATION_CACHE_DIR says, else in
        the user's cache directory; "off": nowhere. Whoever can write there can run code here.
    """
    if directory == OFF:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    said = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    directory = directory or said or platformdirs.user_cache_dir("mnist_jax")
    jax.config.update("jax_compilation_cache_dir", directory)
    # Small programs too: a start has a hundred of them.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
