"""Experiments: the points along which training grows, and how one is measured."""

import json

import numpy as np
import pytest

from experiments import timing
from experiments.scaling import __main__ as scaling
from experiments.scaling import point as scaling_point
from experiments.scaling import report
from mnist_jax import config as configs

LINEAR = scaling_point.Point({"name": "linear"}, 64, 32, members=1, augment=False, repeats=1)


def test_every_point_is_a_config_that_can_be_trained():
    lines = scaling.lines(repeats=3)
    assert {line.axis for line in lines} == set(report.AXES)
    for line in lines:
        assert len(line.points) >= 3
        for point in line.points:
            config = configs.default()
            config.model.update(json.loads(json.dumps(point.model)))
            configs.validate(config)
            assert point.num_train >= point.batch_size


@pytest.mark.parametrize("members", [1, 3])
def test_a_point_is_measured(members):
    found = scaling_point.measure(LINEAR._replace(members=members, augment=members == 1))
    assert found["num_params"] == 7_850  # of one member
    assert found["seconds"] > 0
    assert found["peak_rss_bytes"] > 50e6


def test_more_examples_are_repetitions():
    images, labels = timing.random_examples(25, distinct=10)
    assert (images.shape, images.dtype) == ((25, 28, 28, 1), np.uint8)
    for x in (images, labels):
        assert (x[:10] == x[10:20]).all()
        assert (x[:5] == x[20:]).all()
        assert not (x[0] == x[1:10]).all()


def test_a_point_in_a_process_of_its_own_becomes_a_row_of_the_table():
    row = scaling.measure("members", "linear", LINEAR)
    record = {"command": "python", "device": "2 cores", "jax": "0", "repeats": 1}
    record["rows"] = [
        {**row, "seconds": 2.0, "peak_rss_bytes": 5e8, "microseconds_per_example": 31_250.0},
        {**row, "device_peak_bytes": 7_000_000},
    ]
    lines = report.to_markdown(record).splitlines()
    assert lines[2] == "| members | linear | 1 | 2 | 3.12e+04 | 500 |"
    assert lines[3].endswith("| 7 |")
    assert row["microseconds_per_example"] == pytest.approx(row["seconds"] * 1e6 / 64)
    report.figure(record)
