"""From the command to the end of its first epoch: measured on real starts, and shown."""

from pathlib import Path

import pytest

from experiments import start_up, tables

ROOT = Path(__file__).parents[2]


def test_starts_are_timed_and_shown(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    row = start_up.measure("linear.py:digits", 1)
    assert list(tmp_path.iterdir()) == []
    assert 0 < row["data_seconds"][0] < row["warm_seconds"][0]
    assert row["cold_seconds"] > 0.5  # Python and JAX alone take that long
    table = start_up.to_markdown({**tables.origin("experiments.start_up"), "rows": [row]})
    assert f"| `configs/linear.py:digits` | {row['data_seconds'][0]:.2f} |" in table


def test_a_start_that_fails_is_told(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(ROOT)
    with pytest.raises(RuntimeError, match=r"none\.py: exit code 2 before"):
        start_up.until_first_epoch("none.py", tmp_path)
    assert "configs/none.py" in capfd.readouterr().err
