"""Shared fixtures. Strict numerics everywhere: no implicit dtype or rank promotion."""

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most programs of the tests run once, so XLA optimises next to nothing unless a test asks for it.
# `XLA_FLAGS= make pytest` compiles as users do.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=1 --xla_cpu_parallel_codegen_split_count=1"
    # A flag that a jaxlib lacks ends every process.
    + " --xla_cpu_use_fusion_emitters=false" * version("jaxlib").startswith("0.10."),
)
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")  # of each operation: it takes time
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as `experiments.study` does
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # one for all workers and the commands they run
    _programs = tempfile.TemporaryDirectory(prefix="mnist_jax-programs-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _programs.name
if "PYTEST_XDIST_WORKER" not in os.environ:  # prepared data: none of the user's, one for all
    _data = tempfile.TemporaryDirectory(prefix="mnist_jax-data-")
    os.environ["TFDS_DATA_DIR"] = _data.name

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", str(int(bool(os.environ["XLA_FLAGS"]))))

import forks
import jax
import matplotlib as mpl
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

IN_HASTE = jax.config.read("jax_disable_most_optimizations")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Accelerators multiply float32 in fewer bits by default; oracles do not.
jax.config.update("jax_default_matmul_precision", "highest")

# Tests leave little garbage, and the collector would search all imported objects often.
gc.set_threshold(100_000, 20, 20)

settings.register_profile("mnist_jax", deadline=None)  # the machine may be busy
settings.load_profile("mnist_jax")

# The helpers' assertions say what differs, as the tests' own do.
pytest.register_assert_rewrite("checkpoints", "pages", "shell", "tiny_sweeps", "tiny_runs")

# Every annotated shape and dtype of the package is checked at run time, in every test.
PACKAGE = Path(__file__).parent.parent / "mnist_jax"
annotated = [path for path in PACKAGE.rglob("*.py") if "jaxtyping" in path.read_text()]
modules = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in annotated]
install_import_hook([name.removesuffix(".__init__") for name in modules], "beartype.beartype")


@pytest.fixture(autouse=True, scope="module")
def _programs_of_a_test_file_are_freed():
    """Else a process of thousands of programs runs out of memory maps."""
    gc.freeze()  # or the collector would search all imported objects after each file
    yield
    step = sys.modules.get("mnist_jax.train.step")
    if step:
        step._make_recipe.cache_clear()
    jax.clear_caches()
    gc.collect()


@pytest.fixture(autouse=True, scope="module")
def _pages_of_runs_are_made_where_tests_read_them(request):
    """A page takes longer than training a tiny net, here and in forked commands.

    In a file that has `READS_PAGES` all are made, in others what runs in `tiny_runs.with_pages()`.
    Commands in a new Python make them.
    """
    from mnist_jax.report import run_page  # late: the package's annotations are checked by now

    with pytest.MonkeyPatch.context() as patch:
        if request.path.parent.name != "report" and not hasattr(request.module, "READS_PAGES"):
            patch.setattr(run_page, "render", lambda *args, **kwargs: forks.EMPTY_PAGE)
            patch.setenv(forks.WITHOUT_PAGES, "1")
        yield


def _optimised() -> Iterator[None]:
    """XLA optimises more: for a test whose programs run for longer than that takes."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", IN_HASTE)


optimised = pytest.fixture(_optimised)
all_optimised = pytest.fixture(_optimised, scope="module")  # also in the tests that follow


# Downloads go to a proxy that is not there: no network, on whatever machine.
OFFLINE = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working directory."""
    path = tmp_path / "here"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def no_data(tmp_path, monkeypatch) -> dict[str, str]:
    """A machine with neither prepared data nor archives nor network, as environment variables."""
    monkeypatch.delenv("MNIST_JAX_ARCHIVES", raising=False)
    env = {
        **OFFLINE,
        "HOME": str(tmp_path / "home"),
        "TFDS_DATA_DIR": str(tmp_path / "tfds"),
        "MPLCONFIGDIR": mpl.get_cachedir(),  # or matplotlib looks for fonts in a new home
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return env


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """A folder for a test file, in which JAX keeps what the file's runs compile."""
    from tiny_runs import compiled_in  # late: the package's annotations are checked by now

    folder = tmp_path_factory.mktemp("runs")
    with compiled_in(folder / "compiled"):
        yield folder
