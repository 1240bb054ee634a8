"""Baselines: some configs measured again, beside the published rows of the others."""

import pytest

from experiments import baselines, tables


def test_published_rows_stay_until_they_are_measured_again(tmp_path, monkeypatch, capsys):
    published = {row["config"]: row for row in tables.read("baselines")}
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    monkeypatch.setattr(tables, "README", tmp_path / "README.md")
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results.md")
    tables.README.write_text("<!-- headline -->\n<!-- /headline -->\n")
    tables.RESULTS.write_text("<!-- baselines -->\n<!-- /baselines -->\n")

    def run(config, seed):
        same = ("num_test", "num_params", "compile_seconds", "peak_rss_bytes", "versions")
        old = published[f"configs/{config}"]
        accuracy = {"test_accuracy": 0.5 + 0.01 * seed, "train_seconds": 10.0 + seed}
        new = {"device": "8 cores", "git_revision": "0123456" + 33 * "f"}
        return {key: old[key] for key in same} | accuracy | new

    def measure(*configs):
        command = ["baselines", "--only", *configs]
        monkeypatch.setattr("sys.argv", command)
        monkeypatch.setattr(baselines, "run", run)
        baselines.main()
        return {row["config"]: row["train_seconds"] for row in tables.read("baselines")}

    assert measure("mlp.py:mnist") == {"configs/mlp.py:mnist": 11.0}
    assert list(measure("fast.py:mnist", "linear.py:mnist")) == [
        "configs/linear.py:mnist",
        "configs/mlp.py:mnist",
        "configs/fast.py:mnist",
    ]
    assert tables.RESULTS.read_text().count("| 10 | 14.5 |") == 1
    assert tables.README.read_text().count("| 10 | 14.5 |") == 1
    assert "| 51.00 ± 1.00 | 3 | 11.0 |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        measure("none.py")
