"""Experiments: peers in processes of their own, what is made of their times, tables and figures."""

import copy
import json

import jax
import pytest

from configs import study
from experiments import figures, tables
from experiments.speed import __main__ as speed
from experiments.speed import report, worker
from mnist_jax import config as configs
from mnist_jax.models import networks, registry
from mnist_jax.runs import groups

TINY = worker.Job("ours", {"name": "linear"}, batch_size=32, num_train=64, num_test=32)


def fields(net):
    return study.MODELS[net] | registry.fields(study.MODELS[net])


def num_params(net):
    config = configs.default().model
    config.update(study.MODELS[net])
    return sum(layer.num_params for layer in networks.build(config, 10).layers())


def held(peak_rss_bytes):
    return {"peak_rss_bytes": peak_rss_bytes, "device_peak_bytes": None}


def test_a_worker_does_what_it_is_asked(tmp_path):
    with worker.spawn(TINY, tmp_path) as process:
        for word in ("train", "predict", "train"):
            assert worker.ask(process, word)["seconds"] > 0
        memory = worker.ask(process, "memory")
        assert memory["peak_rss_bytes"] > 50e6
        assert memory["device_peak_bytes"] is None or jax.default_backend() != "cpu"
        with pytest.raises(worker.Failed, match="ValueError: dance"):
            worker.ask(process, "dance")
    assert process.returncode == 0
    assert list((tmp_path / "jax").iterdir())  # what it compiled, for the next one


def test_a_peer_that_cannot_be_had_says_why(tmp_path):
    with worker.spawn(TINY._replace(peer="nobody"), tmp_path) as process:
        with pytest.raises(worker.Failed, match="ValueError: nobody"):
            worker.ask(process, "train")
        with pytest.raises(worker.Failed, match="ended with exit code 0"):
            worker.ask(process, "train")


def test_a_worker_that_is_killed_has_failed(tmp_path):
    with worker.spawn(TINY, tmp_path) as process:
        process.kill()
        with pytest.raises(worker.Failed, match="ended with exit code -9"):
            worker.ask(process, "train")


def test_by_core_every_core_is_a_device(tmp_path, monkeypatch):
    """A batch that the devices cannot share is refused; others are trained on."""
    monkeypatch.setattr(groups.provenance, "cores", lambda: 4)
    by_core = TINY._replace(peer="ours by core")
    with worker.spawn(by_core, tmp_path) as process:
        assert worker.ask(process, "train")["seconds"] > 0
    odd = by_core._replace(batch_size=30, num_train=60)
    with (
        worker.spawn(odd, tmp_path) as process,
        pytest.raises(worker.Failed, match="30 is not a multiple of the 4 devices"),
    ):
        worker.ask(process, "train")


def test_both_of_ours_are_compared_with_others_only():
    cold, cached = speed.Start(5.5, 0.5, 10.0), speed.Start(1.5, 0.5, 5.0)

    def row(seconds):
        turns = {"train": [seconds], "predict": [seconds]}
        return speed.row(turns, cold, cached, [held(1)], 60_000, (1, 1))

    rows = {"ours": row(3.0), "pytorch": row(4.0), "keras": row(8.0), "ours by core": row(1.0)}
    result = {"net": "mlp", "batch_size": 32, "num_train": 60_000, "peers": rows, "failed": {}}
    record = {"device": "2 cores", "jax": "0", "command": "python", "results": [result]}
    header, _, line, *_ = report.to_markdown(record).splitlines()
    shown = dict(zip(header.split(" | "), line.split(" | "), strict=True))
    assert shown["ours / best peer"] == "0.75 (0.75-0.75)"
    assert shown["ours by core / best peer"] == "0.25 (0.25-0.25)"
    assert list(shown)[2:6] == ["ours", "pytorch", "keras", "ours by core"]


def test_measuring_goes_on_without_the_peers_that_fail(monkeypatch):
    monkeypatch.setattr(speed, "PEERS", ("ours", "nobody"))
    monkeypatch.setitem(study.MODELS, "linear", {"name": "linear"})
    found = speed.measure("linear", batch_size=32, num_train=100, repeats=2)
    assert found["failed"] == {"nobody": "ValueError: nobody"}
    (row,) = found["peers"].values()
    assert len(row["epoch_seconds_of_each_turn"]) == 2
    assert len(row["predict_10000_seconds_of_each_turn"]) == 2 * speed.PREDICTIONS
    assert row["start_to_first_epoch_seconds"] > row["epoch_seconds"]
    json.dumps(found, allow_nan=False)


def test_figures_of_turns():
    cold, cached = speed.Start(5.0, 1.0, 10.0), speed.Start(2.0, 0.5, 5.0)
    turns = {"train": [1.5, 1.0, 9.0], "predict": [0.5, 0.25, 0.75, 0.5]}
    row = speed.row(turns, cold, cached, [held(7), held(6)], 6_000, (3_000, 1_000))
    assert row["epoch_seconds"] == 15.0  # ten times the median turn
    assert row["epoch_seconds_of_each_turn"] == [15.0, 10.0, 90.0]
    assert row["predict_10000_seconds"] == 0.5
    assert row["predict_10000_seconds_of_each_turn"] == turns["predict"]
    assert row["examples_per_second"] == 4_000
    assert (row["compile_seconds"], row["compile_seconds_cached"]) == (4.0, 0.5)
    # The first turn is in the start, the other nine tenths of the epoch are not.
    assert row["start_to_first_epoch_seconds"] == 10.0 + 13.5
    assert row["start_to_first_epoch_seconds_cached"] == 5.0 + 13.5
    assert (row["peak_rss_bytes"], row["device_peak_bytes"]) == (7, None)
    assert row["train_gflop_per_second"] == pytest.approx(4_000 * 3_000 / 1e9)
    assert row["predict_gflop_per_second"] == pytest.approx(20_000 * 1_000 / 1e9)


def test_flops_of_training():
    """The first layer's input needs no gradient; every other product is done three times."""
    first, second, third = 2 * 784 * 512, 2 * 512 * 256, 2 * 256 * 10
    assert speed.flops("mlp_512_256") == (2 * first + 3 * (second + third), first + second + third)


def test_a_turn_of_a_quick_net_is_a_whole_epoch():
    turns = {net: speed.examples_of_a_turn(net, 6_144) for net in speed.NETS}
    assert turns == {"mlp_512_256": 60_000, "cnn_3x3": 6_144, "cnn_5x5_3x3": 6_144}
    assert speed.examples_of_a_turn("cnn_5x5_3x3", 70_000) == 70_000


@pytest.mark.parametrize("net", speed.NETS)
def test_the_flax_example_has_the_same_net(net):
    from experiments.speed.peers import flax_example

    module = flax_example.Net(flax_example.hashable(fields(net)))
    images = jax.ShapeDtypeStruct((1, 28, 28, 1), "float32")
    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, False), images)
    assert sum(x.size for x in jax.tree.leaves(variables)) == num_params(net)


@pytest.mark.parametrize("net", speed.NETS)
def test_pytorch_has_the_same_net(net):
    pytest.importorskip("torch", reason="needs pip install -e '.[bench]'")
    from experiments.speed.peers import pytorch

    parameters = pytorch.net(fields(net)).parameters()
    assert sum(p.numel() for p in parameters) == num_params(net)


@pytest.mark.parametrize("net", speed.NETS)
def test_keras_has_the_same_net(net):
    pytest.importorskip("tensorflow", reason="needs pip install -e '.[bench]'")
    pytest.importorskip("keras", reason="needs pip install -e '.[bench]'")
    from experiments.speed.peers import keras

    assert keras.net(fields(net)).count_params() == num_params(net)


def test_a_peer_that_failed_is_a_dash():
    record = copy.deepcopy(tables.read("speed-h200"))
    first = record["results"][0]
    first["failed"] = {"pytorch": "ModuleNotFoundError: No module named 'torch'"}
    del first["peers"]["pytorch"]
    line = report.to_markdown(record).splitlines()[2].split(" | ")
    assert line[4] == "-"
    assert "Not measured: pytorch: ModuleNotFoundError" in report.details(record)


def test_a_record_shows_all_its_figures():
    cold, cached = speed.Start(5.5, 0.5, 10.0), speed.Start(1.5, 0.5, 5.0)
    turns = {"train": [1.5], "predict": [0.5]}
    row = speed.row(turns, cold, cached, [held(512_000_000)], 6_000, (3_000_000, 1_000_000))
    result = {"net": "mlp", "batch_size": 32, "peers": {"ours": row}, "failed": {}}
    record = {
        "device": "2 cores",
        "jax": "0",
        "command": "python",
        "gemm_gflop_per_second": {"jax": 24.0, "torch": 20.0},
        "results": [result],
    }
    shown = report.details(record).splitlines()[2]
    assert shown == (
        "| `mlp` | 32 | ours | 15 | 0.5 | 4,000 | 4 (0) | 23.5 (18.5) | 512 | 12 (50%) |"
    )


def test_the_same_figure_is_the_same_bytes(tmp_path, monkeypatch):
    record = tables.read("speed-h200")
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    written = []
    for _ in range(2):
        figures.save(report.figure(record), "figure")
        written.append((tmp_path / "results/figure.svg").read_bytes())
    assert written[0] == written[1]
    assert len(written[0]) < 100_000
