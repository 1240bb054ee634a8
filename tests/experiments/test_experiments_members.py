"""Experiments with several trials: ablations, ensembles, students, and the cost of a trial."""

import jax
import numpy as np
import pytest

from configs import fast, linear, mlp
from experiments import ablation_template, committee, distil, tables
from experiments.members_speed import __main__ as members_speed
from experiments.members_speed import report
from mnist_jax.runs import loop
from mnist_jax.types import UserError
from mnist_jax.workdir import files

TINY = {"name": "mlp", "widths": (4,)}


def test_an_ablation_is_a_list_of_overrides(tmp_path, monkeypatch):
    config = mlp.get_config("digits")
    config.train.epochs = 2
    monkeypatch.setattr(mlp, "get_config", lambda dataset: config)
    table = ablation_template.main("digits", seeds=2, folder=tmp_path / "ablation")
    lines = table.splitlines()
    names = [line.split("|")[1].strip() for line in lines[2 : 2 + len(ablation_template.SETTINGS)]]
    assert names == list(ablation_template.SETTINGS)
    rows = files.read_rows(tmp_path / "ablation" / files.TRIALS)
    assert len(rows) == 2 * len(names)
    means = [
        100 * np.mean([row["val_accuracy"] for row in rows if row["setting"] == i])
        for i in range(len(names))
    ]
    for line, mean in zip(lines[2:], means, strict=False):
        assert f"| {mean:.2f} ± " in line
        assert f"| {mean - means[0]:+.2f} (" in line
    assert "2 seeds, paired with the first setting." in table
    with pytest.raises(ValueError, match="an interval takes two or more"):
        ablation_template.main(seeds=1)


def test_students_learn_from_an_ensemble(tmp_path, monkeypatch):
    config = linear.get_config("digits")
    config.train.epochs = 3
    monkeypatch.setattr(fast, "get_config", lambda dataset: config.copy_and_resolve_references())
    record = distil.study("digits", 3, tmp_path)
    assert len(record["teachers"]) == len(record["students"]) == 3
    # Ten classes, 3 short epochs: without anything to learn from they would be at 10%.
    assert min(record["students"]) > 70
    assert record["students"] != record["teachers"]
    table = tables.page({**record, **tables.origin("experiments.distil")}, distil.TABLES)
    assert f"| {record['committee']:.2f} |" in table
    config.optim.learning_rate = 0.5  # of these nets it knows nothing
    with pytest.raises(
        UserError, match=r"holds another run, which differs in config\.optim\.learn"
    ):
        distil.study("digits", 3, tmp_path)


@pytest.fixture(scope="module")
def measured():
    """A tiny net, one of the peers missing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(members_speed.NETS, "tiny", TINY)
        patch.setattr(members_speed, "PEERS", ("ours", "nobody"))
        patch.setattr(members_speed, "BATCH_SIZE", 32)
        patch.setattr(members_speed.groups.provenance, "cores", lambda: 2)
        yield members_speed.throughput("tiny", (1, 3), num_train=100, repeats=2)


def test_throughput_is_measured_without_the_peers_that_fail(measured):
    assert measured["failed"] == {"nobody": "ValueError: nobody"}
    assert list(measured["alone_epoch_seconds"]) == ["ours"]
    assert [row["members"] for row in measured["rows"]] == [1, 3]
    assert [row["width"] for row in measured["rows"]] == [1, 2]
    one, three = measured["rows"]
    assert one["epoch_seconds_sharing"] is None  # there is nobody to share with
    assert min(one["epoch_seconds"], three["epoch_seconds"], three["epoch_seconds_sharing"]) > 0


def test_an_epoch_trains_all_trials(monkeypatch):
    monkeypatch.setitem(members_speed.NETS, "tiny", TINY)
    monkeypatch.setattr(members_speed, "BATCH_SIZE", 32)
    monkeypatch.setattr(members_speed.groups.provenance, "cores", lambda: 1)
    calls = []
    compile_programs = loop.compile_programs

    def counted(group, chunk):
        programs = compile_programs(group, chunk)

        def train(states, trials, *args):
            calls.append(jax.random.key_data(trials.root)[:, 1].tolist())  # their seeds
            return programs.train(states, trials, *args)

        return programs._replace(train=train)

    monkeypatch.setattr(loop, "compile_programs", counted)
    config = members_speed.members_config(TINY, 5, share_batches=False)
    config.sweep.width = 2
    width, train = members_speed.epoch_of_trials(config, members_speed.random_splits(64))
    train()
    assert width == 2
    assert calls == [[0, 1], [2, 3], [4, 4]]  # the last program is filled up with a copy


def test_the_tables_and_the_figure(measured):
    record = {
        "command": "it",
        "device": jax.devices()[0].device_kind,
        "versions": {"jax": "1"},
        "git_revision": None,
        "repeats": 2,
        "throughput": [measured],
        "cross_validation": [
            {
                "model": "softmax regression",
                "epochs": 20,
                "ours_seconds": 2.0,
                "scikit_learn": "SGDClassifier",
                "scikit_learn_seconds": 30.0,
                "ours_accuracies": [0.92, 0.93],
                "scikit_learn_accuracies": [0.9, 0.92],
            }
        ],
    }
    one, three = report.to_markdown(record).splitlines()[2:4]
    assert one.startswith("| tiny | 1 | 1 | ")
    assert three.startswith("| tiny | 3 | 2 | ")
    assert one.endswith(" - |")  # the peer that failed
    best = measured["rows"][0]["epoch_seconds"]
    assert f"| {1e3 * best:.3g} | {measured['alone_epoch_seconds']['ours'] / best:.2f} |" in one
    line = report.cross_validation_to_markdown(record).splitlines()[2]
    assert line == (
        "| softmax regression (SGDClassifier) | 20 | 2.0 | 30.0 | 15.0 "
        "| - | - | 92.50 ± 0.71 | 91.00 ± 1.41 |"
    )
    record["cross_validation"][0]["pytorch_seconds"] = 50.0
    line = report.cross_validation_to_markdown(record).splitlines()[2]
    assert " | 30.0 | 15.0 | 50.0 | 25.0 | 92.50 ± 0.71 | " in line
    (axes,) = report.figure(record).axes
    assert axes.get_title(loc="left") == "tiny"
    lines = {line.get_label(): line for line in axes.get_lines()}
    np.testing.assert_allclose(
        lines["batches of their own"].get_ydata(),
        [1e3 * row["epoch_seconds"] / row["members"] for row in measured["rows"]],
    )
    assert "ours, one run" in lines


def test_cross_validation_beside_scikit_learn_and_ten_runs(monkeypatch):
    configs, jobs, asked = [], [], []
    held_out, worker = members_speed._held_out_accuracies, members_speed.worker
    spawn, ask = worker.spawn, worker.ask

    def by_folds(config, examples):
        configs.append(config)
        return held_out(config, examples)

    def ours_instead(job, cache):  # where PyTorch may not be
        jobs.append(job)
        return spawn(job._replace(peer="ours", num_train=job.batch_size), cache)

    monkeypatch.setattr(members_speed.os, "cpu_count", lambda: 1)  # processes start slowly
    monkeypatch.setattr(members_speed, "_held_out_accuracies", by_folds)
    monkeypatch.setattr(worker, "spawn", ours_instead)
    monkeypatch.setattr(worker, "ask", lambda *args: asked.append(args[1]) or ask(*args))
    rows = members_speed.cross_validation("digits", epochs=2, repeats=1)
    assert [row["model"] for row in rows] == ["softmax regression", "mlp_512_256"]
    assert [row["epochs"] for row in rows] == [2, 2]
    for row in rows:
        assert min(row[f"{who}_seconds"] for who in ("ours", "scikit_learn", "pytorch")) > 0
        for key in ("ours_accuracies", "scikit_learn_accuracies"):
            assert len(row[key]) == 10
            assert np.mean(row[key]) > 0.4
    # scikit-learn's MLP has its own batches and one rate.
    softmax, net = configs
    assert (softmax.sweep.share_batches, softmax.optim.schedule) == (True, "one_cycle")
    assert (net.sweep.share_batches, net.optim.schedule) == (False, "constant")
    # Of 1,437 examples ten folds leave 1,293.
    assert [(job.peer, job.net["name"], job.num_train) for job in jobs] == [
        ("pytorch", "linear", 1280),
        ("pytorch", "mlp", 1280),
    ]
    assert jobs[1].net["widths"] == (512, 256)
    assert asked == ["train"] * 40


def test_without_pytorch_there_is_no_time_of_it(monkeypatch):
    config = members_speed.members_config(TINY, 1, share_batches=False)
    config.sweep.folds = 2
    spawn = members_speed.worker.spawn
    monkeypatch.setattr(
        members_speed.worker, "spawn", lambda job, cache: spawn(job._replace(peer="?"), cache)
    )
    assert members_speed._runs_of_pytorch(config, 1000) is None


def test_an_ensemble_is_trained_and_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fast, "get_config", linear.get_config)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["committee", "--quick"])
    monkeypatch.setattr(committee.xla, "enable_cache", lambda: None)
    committee.main()
    out = capsys.readouterr().out
    assert not (tmp_path / "experiments").exists()
    for smoothing in committee.SMOOTHING:
        folder = tmp_path / committee.RUNS / f"digits-smoothing-{smoothing}-3-members"
        summary = files.read_json(folder / files.SUMMARY)
        single, together = summary["test"], summary["ensemble"]
        accuracies = [summary["settings"][0]["val_score"]["mean"], single["accuracy"]["mean"]]
        accuracies += together["test_accuracy"].values()
        shown = [line.split(" | ") for line in out.splitlines() if line.startswith("| digits |")]
        first, second, third = (row for row in shown if row[1] == f"{smoothing:g}")
        assert [cell.split()[0] for cell in first[3:]] == [f"{100 * x:.2f}" for x in accuracies]
        assert second[3] == f"{100 * together['ece']:.2f}"
        assert second[5].split()[0] == f"{together['nll']:.4f}"
        assert third[-1].split()[0] == f"{100 * together['test_accuracy'][committee.RULE]:.2f}"


def test_validation_chooses_the_ensemble():
    def row(dataset, smoothing, validation, test):
        accuracy = {"mean": test, "sd": 0.001}
        together = {"members": 10, "test_accuracy": {"vote": 0.5, committee.RULE: test + 0.01}}
        return {
            "dataset": dataset, "label_smoothing": smoothing, "num_params": 5, "num_test": 100,
            "validation": {"mean": validation, "sd": 0.002}, "single": {"accuracy": accuracy},
            "committee": together,
        }  # fmt: skip

    rows = [row("a", 0.1, 0.9, 0.8), row("a", 0, 0.8, 0.9), row("b", 0.1, 0.7, 0.7)]
    rows.append(row("b", 0, 0.71, 0.6))
    table = committee.accuracy_table({**tables.origin("experiments.committee"), "rows": rows})
    assert (
        "it selects label smoothing 0.1 on a (single 80.00 ± 0.10, ensemble 81.00% by the mean of "
        "probabilities), label smoothing 0 on b (single 60.00 ± 0.10, ensemble 61.00% by the mean "
        "of probabilities). "
    ) in table
    assert "| a | 0.1 | 5 | 90.00 ± 0.20 | 80.00 ± 0.10 | 50.00 | 81.00 |" in table
