"""Selection: which setting is chosen, and which settings successive halving drops."""

import json
import math
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_sweeps import parse, rows, run, same_bits, summary

from mnist_jax.analysis import stats
from mnist_jax.runs import loop, select
from mnist_jax.runtime import progress

READS_PAGES = True


def test_settings_are_compared_with_the_chosen_one_pair_by_pair():
    """Over the seeds and folds that diverged in neither."""
    accuracies = {
        (0, 0): 0.90,
        (0, 1): 0.92,
        (0, 2): 0.93,
        (1, 0): 0.93,
        (1, 1): 0.94,
        (1, 2): 0.97,
    }
    rows = [
        {"setting": s, "seed": 0, "fold": f, "status": "finished", "val_accuracy": accuracy}
        for (s, f), accuracy in accuracies.items()
    ]
    rows.append({**rows[0], "seed": 1, "status": "diverged", "val_accuracy": None})
    rows.append({**rows[3], "seed": 1, "val_accuracy": 0.5})
    rows.append({**rows[0], "setting": 2, "status": "diverged", "val_accuracy": None})
    described = [{"setting": i, "dropped": False} for i in range(3)]
    first, chosen, lost = select.vs_chosen(rows, [], described, 1, "accuracy")
    expected = stats.paired([0.93, 0.94, 0.97], [0.90, 0.92, 0.93], range(3), stats.SHARE)
    assert first == {**described[0], "vs_chosen": expected._asdict()}
    assert first["vs_chosen"]["low"] < -0.03 < first["vs_chosen"]["high"]
    assert chosen["vs_chosen"] is None is lost["vs_chosen"]
    alone = [{**row, "fold": None} for row in rows if row["fold"] == 0 and not row["seed"]]
    found = select.vs_chosen(alone, [], described, 1, "accuracy")[0]["vs_chosen"]
    assert found["difference"] == pytest.approx(-0.03)
    assert found["low"] is None


def setting(score, loss=1.0, diverged=0, dropped=0):
    """Of three trials; `dropped`: after this epoch."""
    described = [{"mean": mean} if diverged < 3 else None for mean in (score, loss)]
    counts = {"trials": 3, "diverged": diverged, "dropped": dropped > 0, "epochs": dropped or 10}
    return counts | dict(zip(("val_score", "val_loss"), described, strict=True))


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (setting(0.9), setting(0.8)),
        (setting(0.9, loss=2.0), setting(0.8, loss=0.1)),
        # Of equal scores the lower loss.
        (setting(0.9, loss=0.1), setting(0.9, loss=0.2)),
        (setting(0.8), setting(0.9, diverged=1)),
        # Halving has decided between these two already.
        (setting(0.8), setting(0.9, dropped=2)),
        (setting(0.8, diverged=1), setting(0.9, dropped=2)),
        # Of dropped settings the one that was trained longer is better, whatever its score.
        (setting(0.8, dropped=5), setting(0.9, dropped=2)),
        (setting(0.9, dropped=2), setting(0.8, dropped=2)),
        # A setting whose trials all diverged cannot be evaluated.
        (setting(0.8, dropped=2), setting(0.9, diverged=3)),
        (setting(0.8, diverged=1, dropped=2), setting(0.9, diverged=3)),
    ],
)
def test_the_best_setting_is_complete_and_has_the_best_score_and_loss(better, worse):
    assert select.rank(better) > select.rank(worse)


@pytest.mark.parametrize(
    ("score", "mean", "sd", "text"),
    [
        ("accuracy", 0.98764, 0.0012, "accuracy 98.76% ± 0.12"),
        ("macro_f1", 0.5, None, "macro f1 50.00%"),
        ("psnr", 21.301, 0.25, "psnr 21.30 dB ± 0.25"),
    ],
)
def test_scores_are_formatted_with_their_units(score, mean, sd, text):
    assert select.format_score(score, mean, sd) == text


def test_the_choice_in_a_line():
    rows = [
        {
            "setting": setting,
            "overrides": {"model.dropout": dropout},
            "seed": seed,
            "fold": None,
            "status": "finished",
            "epochs": 2,
            "val_loss": 1.0,
            "val_accuracy": 0.9 + 0.005 * setting + 0.001 * seed,
        }
        for setting, dropout in enumerate((0.0, 0.2))
        for seed in range(3)
    ]
    described = select.describe_settings(rows, "accuracy")
    line = select.explain_choice(described, 1, "accuracy", folds=0)
    assert line == "best of 2 settings by validation: dropout 0.2: accuracy 90.60% ± 0.10"
    assert select.explain_choice(described[:1], 0, "accuracy", folds=0) == ""
    line = select.explain_choice(described[:1], 0, "accuracy", folds=5)
    assert line == "5 held-out folds: accuracy 90.10% ± 0.10"
    lost = {"val_loss": None, "val_accuracy": None}
    alone = select.describe_settings([rows[0] | lost], "accuracy")
    assert select.explain_choice(alone, 0, "accuracy", folds=0) == ""


# --- successive halving ---------------------------------------------------------------------------


def history(*values):
    """Rows of epochs from the validation accuracies of each trial, epoch after epoch."""
    return [
        {"trial": trial, "epoch": epoch, "val_accuracy": value}
        for trial, own in enumerate(values)
        for epoch, value in enumerate(own, 1)
    ]


@pytest.mark.parametrize(
    ("values", "settings", "epoch", "dropped"),
    [
        (((0.1,), (0.3,), (0.2,), (0.4,)), (0, 1, 2, 3), 1, {0, 2}),
        (((0.1,), (0.3,), (0.2,)), (0, 1, 2), 1, {0}),
        (((0.2,), (0.2,)), (0, 1), 1, {1}),
        (((0.9,),), (0,), 1, set()),
        # Settings are compared by the means of their trials.
        (((0.9,), (0.1,), (0.6,), (0.6,)), (0, 0, 1, 1), 1, {0}),
        # Only the epochs so far count.
        (((0.1, 0.9), (0.2, 0.1)), (0, 1), 1, {0}),
        (((0.1, 0.9), (0.2, 0.1)), (0, 1), 2, {1}),
        # Settings that were dropped earlier do not count: half of the other two are dropped.
        (((0.9,), (0.1, 0.5), (0.2, 0.4)), (0, 1, 2), 2, {2}),
        # A trial that stopped early counts with its last epoch.
        (((0.9,), (0.1, 0.2), (0.4, 0.4), (0.4, 0.4)), (0, 0, 1, 1), 2, {1}),
        (((None,), (0.1,)), (0, 1), 1, {0}),
    ],
)
def test_the_worse_half_is_dropped(values, settings, epoch, dropped):
    assert select.worse_half(history(*values), settings, epoch, "accuracy") == dropped


def test_rounds_compare_settings_trained_equally_long():
    """Setting 0 is dropped after epoch 1, though a later score of the others is lower."""
    rows = [
        {"trial": i, "setting": i // 2, "seed": i % 2, "fold": None, "overrides": {},
         "status": status, "epochs": epochs, "val_loss": 1.0, "val_accuracy": last}
        for i, (status, epochs, last) in enumerate([
            ("dropped", 1, 0.8), ("dropped", 1, 0.81), ("finished", 3, 0.7), ("finished", 3, 0.6),
            ("diverged", 1, None), ("stopped", 2, 0.9),
        ])
    ]  # fmt: skip
    told = history((0.8,), (0.81,), (0.85, 0.5, 0.7), (0.87, 0.5, 0.6), (0.1,), (0.9, 0.9))
    first, second = select.rounds(rows, told, (2, 1), "accuracy")
    assert (first["epoch"], second["epoch"]) == (1, 2)
    means = [
        {s["setting"]: pytest.approx(s["val_score"]["mean"]) for s in part["settings"]}
        for part in (first, second)
    ]
    assert means == [{0: 0.805, 1: 0.86, 2: 0.9}, {1: 0.5, 2: 0.9}]
    settings = select.describe_settings(rows, "accuracy")
    assert [setting["epochs"] for setting in settings] == [1, 3, 2]
    assert [setting["rank"] for setting in settings] == [3, 1, 2]
    dropped, chosen, _ = select.vs_chosen(rows, told, settings, 1, "accuracy")
    assert dropped["vs_chosen"]["difference"] == pytest.approx(0.805 - 0.86)
    assert chosen["vs_chosen"] is None


@given(st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=2), min_size=1, max_size=9))
def test_no_setting_that_stays_is_worse_than_a_dropped_one(values):
    settings = list(range(len(values)))
    dropped = select.worse_half(history(*values), settings, 1, "accuracy")
    assert len(dropped) == len(values) // 2
    staying = [values[i][0] for i in settings if i not in dropped]
    assert max((values[i][0] for i in dropped), default=-math.inf) <= min(staying)


def test_halving_drops_the_worse_half_of_the_settings(folder):
    grid = '--config.sweep.grid={"optim.learning_rate": [1e-6, 0.003, 1e-5, 0.01]}'
    config = parse(grid, "--config.sweep.seeds=2", "--config.sweep.halving=(1,3)")
    lines = []
    found = run(config, folder / "halved", lines.append)
    epochs = [row["epochs"] for row in rows(folder / "halved")]
    assert sorted(epochs) == [1, 1, 1, 1, 3, 3, 4, 4]
    assert epochs[0] == epochs[4] == 1
    chosen = found["chosen"]
    assert epochs[2 * chosen] == 4
    assert {row["status"] for row in rows(folder / "halved")} == {"dropped", "finished"}
    assert lines.count("halving after epoch 1: 2 dropped") == 1
    assert lines.count("halving after epoch 3: 1 dropped") == 1
    assert [(part["epoch"], len(part["settings"])) for part in found["rounds"]] == [(1, 4), (3, 2)]
    by_rank = sorted(found["settings"], key=lambda setting: setting["rank"])
    assert [setting["epochs"] for setting in by_rank] == [4, 3, 1, 1]
    assert by_rank[0]["setting"] == chosen
    at_3 = {row["setting"]: row["val_score"]["mean"] for row in found["rounds"][1]["settings"]}
    difference = at_3[by_rank[1]["setting"]] - at_3[chosen]
    assert by_rank[1]["vs_chosen"]["difference"] == pytest.approx(difference)
    interval, accuracy = found["test_interval"], found["test"]["accuracy"]
    assert 0 <= interval["low"] <= accuracy["low"] < accuracy["high"] <= interval["high"] <= 1
    report = (folder / "halved" / "report.html").read_text()
    assert [f"After epoch {epoch}</h3>" in report for epoch in (1, 3)] == [True, True]
    assert sum(line.startswith("estimated from this epoch: ") for line in lines) == 1
    assert select._work(config, [range(8)], repeats=1) == loop.Later(groups=3, epochs=sum(epochs))


BOTH_BETTER = json.dumps(  # the settings with four units, not those with eight
    [
        {"model.widths": [widths], "optim.learning_rate": rate}
        for widths, rates in ((8, (1e-6, 1e-5)), (4, (0.003, 0.01)))
        for rate in rates
    ]
)


@pytest.fixture(scope="module")
def shapes(folder):
    """Two groups; the worse two settings are in the first one."""
    config = parse(f"--config.sweep.settings={BOTH_BETTER}", "--config.sweep.halving=(1,)")
    lines = []
    run(config, folder / "halved shapes", lines.append)
    return config, folder / "halved shapes", lines


def test_halving_compares_settings_of_all_shapes(shapes):
    _, workdir, lines = shapes
    found = [(row["status"], row["epochs"]) for row in rows(workdir)]
    assert found == [("dropped", 1), ("dropped", 1), ("finished", 4), ("finished", 4)]
    assert summary(workdir)["chosen"] in (2, 3)
    assert f"{workdir}/checkpoints/0: all its settings are dropped" in lines
    assert not any(line.endswith("trained already") for line in lines)


def stop_after(epoch, config, workdir):
    def log(line):
        if line.startswith(f"epoch {epoch}/"):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(progress.Stopped, match=f"after epoch {epoch} of 4"):
        run(config, workdir, log)


@pytest.mark.usefixtures("no_pages")
def test_halving_resumes_to_the_same_bits(shapes, folder):
    """Stopped between the groups, where a signal still counts, and after halving."""
    config, unbroken, _ = shapes
    workdir = folder / "halved and stopped"
    for epoch in (1, 2):
        stop_after(epoch, config, workdir)
    run(config, workdir)
    same_bits(workdir, unbroken)


@pytest.mark.usefixtures("no_pages")
def test_halving_narrows_programs_and_resumes_to_the_same_bits(folder, monkeypatch):
    compile_programs, widths = loop.compile_programs, []
    monkeypatch.setattr(
        loop,
        "compile_programs",
        lambda group, chunk: widths.append(group.plan.width) or compile_programs(group, chunk),
    )
    grid = '--config.sweep.grid={"optim.learning_rate": [1e-5, 0.003, 1e-6, 0.01]}'
    config = parse(grid, "--config.sweep.halving=(1,3)", "--config.sweep.width=4")
    unbroken, workdir = folder / "narrower", folder / "narrower and stopped"
    run(config, unbroken)
    assert widths == [4, 2, 1]
    for epoch in (2, 3):
        stop_after(epoch, config, workdir)
    widths.clear()
    run(config, workdir)
    assert widths == [1]
    same_bits(workdir, unbroken)
