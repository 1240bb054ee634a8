"""The profile of layers: small ones of each kind, measured and shown."""

import pytest

from experiments import layer_profile, tables
from experiments.layer_profile import Layer


def test_each_kind_of_layer_is_measured(monkeypatch):
    monkeypatch.setattr(layer_profile, "REPEATS", 1)
    kinds = {
        Layer("net", 1, 5, 3, 1): 2 * 4 * 5 * 3,
        Layer("net", 6, 2, 3, 3): 2 * 4 * 36 * 9 * 2 * 3,
        Layer("net", 6, 2, 2, 3, depthwise=True): 2 * 4 * 36 * 9 * 2,
    }
    rows = [layer_profile.measure(layer, 4) for layer in kinds]
    assert [row["flops"] for row in rows] == list(kinds.values())
    for row in rows:
        parts = ("forward", "image_gradient", "kernel_gradient")
        assert min(row[key] for part in parts for key in (part, f"{part}_native")) > 0
    record = {
        **tables.origin("experiments.layer_profile"),
        "batch_size": 4,
        "gemm_gflop_per_second": {"jax": 100.0},
        "results": rows,
    }
    lines = layer_profile.to_markdown(record).splitlines()[2:5]
    shown = [line.split(" | ")[1:3] for line in lines]
    assert shown == [
        ["4 of 1x1", "dense, 5 to 3"],
        ["4 of 6x6", "3x3, 2 to 3"],
        ["4 of 6x6", "3x3, depthwise"],
    ]
    assert float(lines[0].split(" | ")[4].split(", ")[0]) == pytest.approx(
        1e3 * rows[0]["forward"], abs=0.01
    )
