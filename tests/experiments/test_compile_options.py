"""XLA's options: the same programs with and without them, measured and shown."""

import pytest

from configs import linear
from experiments import compile_options, tables
from mnist_jax.runtime import xla


@pytest.mark.skipif(not xla.has_options(), reason="the options are for tested releases on a CPU")
def test_each_set_of_options_is_measured():
    seconds = compile_options.measure(linear.get_config("mnist"), count=256, repeats=2)
    assert list(seconds) == ["none", "passes", "all"]
    for times in seconds.values():
        assert len(times) == 2
        assert min(times) > 0


def test_ratios_are_paired():
    seconds = {"none": [2.0, 3.0, 8.0], "passes": [1.0, 2.0, 4.0], "all": [1.0, 2.0, 4.0]}
    record = {
        **tables.origin("experiments.compile_options"),
        "count": 256,
        "repeats": 3,
        "rows": [{"config": "configs/linear.py", "seconds": seconds}],
    }
    cells = compile_options.to_markdown(record).splitlines()[2].strip("| ").split(" | ")
    assert cells[:2] == ["`configs/linear.py`", "2.000"]
    assert cells[2:] == ["2.00 (1.50 to 2.00)", "1.00 (1.00 to 1.00)"]
