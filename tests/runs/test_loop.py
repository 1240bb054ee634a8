"""The host loop: what a run computes, chooses, writes and is judged by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import (
    LINEAR,
    bits,
    is_whole_and_the_same,
    logits_of,
    make_config,
    recipe_of,
    restored,
    rows,
    train_run,
)

from mnist_jax import train
from mnist_jax.analysis import metrics
from mnist_jax.analysis.metrics import Metrics
from mnist_jax.data import splits
from mnist_jax.runs import loop
from mnist_jax.train import evaluate
from mnist_jax.types import UserError
from mnist_jax.workdir import files

pytestmark = pytest.mark.usefixtures("folder")

MLP = {**LINEAR, "model.name": "mlp", "model.widths": (16,)}


def predict(config, variables, images):
    return np.asarray(evaluate.predict(recipe_of(config)[0].model, variables, jnp.asarray(images)))


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    """A run whose rate rises until it forgets everything: its best epoch is an early one."""
    config = make_config(
        MLP,
        train__epochs=8,
        optim__schedule="cosine",
        optim__warmup=0.99,
        optim__learning_rate=1.0,
    )
    workdir = tmp_path_factory.mktemp("spoilt") / "run"
    train_run(config, workdir)
    assert files.read_json(workdir / files.SUMMARY)["best_epoch"] < 8
    return workdir, config


# --- what it leaves ------------------------------------------------------------------------------


def test_everything_is_there_and_agrees(spoilt):
    workdir, config = spoilt
    examples = splits.load(config)
    assert {path.name for path in workdir.iterdir()} == {
        *(files.CONFIG, files.METRICS, files.SUMMARY, files.PREDICTIONS, files.REPORT),
        *(files.CHECKPOINTS, files.TENSORBOARD),
    }
    summary, history = files.read_json(workdir / files.SUMMARY), rows(workdir)
    steps = 1293 // 128
    assert [(row["epoch"], row["step"]) for row in history] == [(e, e * steps) for e in range(1, 9)]
    rates = [
        row["learning_rate"] for row in history
    ]  # of each epoch's last step, on a straight line
    assert rates == pytest.approx(
        [(step - 1) / (0.99 * 80) for step in range(10, 81, 10)], abs=0.01
    )
    with np.load(workdir / files.PREDICTIONS) as stored:
        np.testing.assert_array_equal(stored["labels"], examples.test.labels)
        np.testing.assert_array_equal(stored["images_index"], np.arange(360))
        errors = int((stored["logits"].argmax(1) != stored["labels"]).sum())
    assert (summary["num_train"], summary["num_val"], summary["num_test"]) == (1293, 144, 360)
    assert summary["test_errors"] == errors
    assert summary["test_accuracy"] == pytest.approx(1 - errors / 360)
    assert np.sum(summary["confusion_matrix"]) == 360
    assert summary["num_params"] == 784 * 16 + 16 + 16 * 10 + 10
    timed = files.read_rows(workdir / files.METRICS)
    assert all(
        row["examples_per_second"] == pytest.approx(steps * 128 / row["seconds"]) for row in timed
    )
    assert summary["train_seconds"] == pytest.approx(sum(row["seconds"] for row in timed))


def test_the_score_counts_errors_and_then_the_loss():
    config = make_config(LINEAR)
    recipe, examples = recipe_of(config)
    state = train.init_state(recipe, train.make_hparams(config), jax.random.key(0))
    labels = jnp.asarray(examples.val.labels)

    def score(num_errors, confidence):
        decided = labels.at[:num_errors].set((labels[:num_errors] + 1) % 10)
        report = metrics.classification(confidence * jax.nn.one_hot(decided, 10), labels)
        sums = Metrics(jnp.float32(1), jnp.int32(1), jnp.int32(1))
        program = loop.Program(
            recipe=recipe,
            initial=state,
            epoch=lambda state: (state, sums),
            validate=lambda state: report,
            learning_rate=lambda state: jnp.float32(1),
            compile_seconds=0.0,
        )
        _, row, score = loop._train_epoch(program, state, 1, lambda: None)
        return score, row["val_loss"]

    # Confident of its one error, it has a larger loss than one that is sure of nothing.
    (sure, sure_loss), (unsure, unsure_loss) = score(1, 1e6), score(2, 0.01)
    assert sure_loss > unsure_loss
    assert sure > unsure
    (better, better_loss), (worse, worse_loss) = score(2, 0.0101), score(2, 0.01)
    assert better_loss < worse_loss
    assert better > worse


def test_the_chosen_parameters_are_judged(spoilt):
    workdir, config = spoilt
    latest, best = restored(workdir)
    assert (latest.epoch, best.epoch) == (
        8,
        files.read_json(workdir / files.SUMMARY)["best_epoch"],
    )
    images = splits.load(config).test.images
    logits = [predict(config, train.variables(kept.state), images) for kept in (best, latest)]
    np.testing.assert_array_equal(logits_of(workdir), logits[0])
    assert not np.array_equal(logits_of(workdir), logits[1])


def test_the_test_split_is_judged_once_and_changes_nothing(spoilt, tmp_path, monkeypatch):
    """With other labels and images to test on, training goes the same way, bit by bit."""
    workdir, config = spoilt
    examples = splits.load(config)
    other = splits.Split(examples.test.images[::-1].copy(), np.roll(examples.test.labels, 7))
    judged, compile_judge = [], loop.compile_judge

    def watched(model, like, split, mesh, **how):
        judge = compile_judge(model, like, split, mesh, **how)
        return lambda variables: judged.append(len(split.labels)) or judge(variables)

    monkeypatch.setattr(loop, "compile_judge", watched)
    again = tmp_path / "run"
    loop.run(config, examples._replace(test=other), again, echo=lambda line: None)
    assert judged == [len(examples.val.labels)] * config.train.epochs + [360]
    assert rows(again) == rows(workdir)
    for ours, theirs in zip(restored(again), restored(workdir), strict=True):
        assert bits(ours.state) == bits(theirs.state)
    assert not np.array_equal(logits_of(again), logits_of(workdir))


# --- seeds ---------------------------------------------------------------------------------------


def test_the_seed_is_all_there_is_to_it(spoilt, tmp_path):
    workdir, config = spoilt
    train_run(config, tmp_path / "same")
    is_whole_and_the_same(tmp_path / "same", workdir)
    other = config.copy_and_resolve_references()
    other.seed = 1
    loop.run(other, splits.load(config), tmp_path / "other", echo=lambda line: None)
    ours, theirs = (bits(restored(w)[0].state.params) for w in (workdir, tmp_path / "other"))
    assert all(ours[path] != theirs[path] for path in ours)
    held_out = [splits.load(c).val.images for c in (config, other)]
    assert not np.array_equal(*held_out)


# --- what the config can ask for -----------------------------------------------------------------


def test_without_validation(tmp_path):
    config = make_config(LINEAR, data__val_size=0.0)
    lines = []
    summary = train_run(config, tmp_path / "run", echo=lines.append)
    assert (summary["num_train"], summary["num_val"]) == (1437, 0)
    assert (summary["best_epoch"], summary["val_accuracy"]) == (3, None)
    assert all(row["val_loss"] is row["val_accuracy"] is None for row in rows(tmp_path / "run"))
    assert len(lines) == 1 + 3  # what it trains on, and the epochs
    assert not any("val" in line for line in lines)
    latest, best = restored(tmp_path / "run")
    assert latest.epoch == best.epoch == 3
    images = splits.load(config).test.images
    logits = predict(config, train.variables(latest.state), images)
    np.testing.assert_array_equal(logits_of(tmp_path / "run"), logits)
    assert (tmp_path / "run" / files.REPORT).stat().st_size > 10_000


def test_the_average_is_what_is_evaluated(tmp_path):
    config = make_config(LINEAR, optim__ema=0.99, optim__learning_rate=0.1)
    summary = train_run(config, tmp_path / "run")
    _, best = restored(tmp_path / "run")
    recipe, examples = recipe_of(config)
    for split, accuracy in ((examples.val, "val_accuracy"), (examples.test, "test_accuracy")):
        logits, judged = evaluate.judge(
            recipe.task, recipe.model, {"params": best.state.ema_params}, *map(jnp.asarray, split)
        )
        assert summary[accuracy] == pytest.approx(float(judged.accuracy))
    np.testing.assert_array_equal(logits_of(tmp_path / "run"), logits)
    plain = predict(config, {"params": best.state.params}, examples.test.images)
    assert not np.allclose(logits, plain, rtol=0.01)


def test_the_rate_falls_on_a_plateau(tmp_path):
    config = make_config(
        LINEAR,
        train__epochs=8,
        optim__schedule="plateau",
        optim__decay=0.5,
        optim__decay_epochs=1,
        optim__learning_rate=0.5,
    )
    train_run(config, tmp_path / "run")
    history, lowest, rate = rows(tmp_path / "run"), np.inf, 0.5
    for row in history:
        assert row["learning_rate"] == pytest.approx(rate)
        improved = row["val_loss"] < lowest * (1 - 1e-4)  # Optax's default for what counts
        lowest, rate = min(lowest, row["val_loss"]), rate if improved else rate * 0.5
    assert 0.5 > history[-1]["learning_rate"] > 0.5 * 0.5**7  # it fell, and it stayed too


# --- what is compiled ----------------------------------------------------------------------------


def test_numbers_are_not_compiled_in(monkeypatch):
    config = make_config(
        MLP,
        model__dropout=(0.2,),
        train__augment__rotation=10.0,
        train__augment__erase=0.5,
        optim__name="momentum",
        optim__momentum=0.4,
        optim__weight_decay=0.1,
        optim__label_smoothing=0.1,
        optim__clip=0.5,
        optim__ema=0.1,
    )
    traced = []
    step = train.train_step
    monkeypatch.setattr(train, "train_step", lambda *args: traced.append(1) or step(*args))
    recipe, examples = recipe_of(config)
    images, labels = (jnp.asarray(part[:256]) for part in examples.train)
    hparams, root = train.make_hparams(config), jax.random.key(0)
    double = jax.tree.map(lambda number: number * 2, hparams)
    variants = {name: hparams._replace(**{name: getattr(double, name)}) for name in hparams._fields}
    results = {}
    for name, values in {"as it is": hparams, **variants}.items():
        state = train.init_state(recipe, values, root)
        state, _ = train.train_epoch(recipe, state, images, labels, values, root)
        results[name] = str(bits(train.variables(state)))
    assert len(traced) == 1
    assert len(set(results.values())) == len(results) == 10  # and each of them matters


# --- judging a run afterwards --------------------------------------------------------------------


def test_a_finished_run_is_judged_as_it_judged_itself(spoilt):
    workdir, _ = spoilt
    summary = files.read_json(workdir / files.SUMMARY)
    epoch, judged = loop.evaluate_run(workdir, "test")
    assert epoch == summary["best_epoch"]
    assert judged["errors"] == summary["test_errors"]
    assert judged["confusion_matrix"] == summary["confusion_matrix"]
    epoch, judged = loop.evaluate_run(workdir, "val")
    row = rows(workdir)[epoch - 1]
    assert judged["accuracy"] == pytest.approx(row["val_accuracy"])
    assert judged["loss"] == pytest.approx(row["val_loss"])
    _, judged = loop.evaluate_run(workdir, "train")
    assert sum(row["support"] for row in judged["per_class"]) == 1293


def test_what_cannot_be_judged(tmp_path):
    with pytest.raises(UserError, match=f"^{tmp_path}: there is no run"):
        loop.evaluate_run(tmp_path, "test")
    config = make_config(LINEAR, data__val_size=0.0, train__epochs=1)
    workdir = tmp_path / "run"
    workdir.mkdir()
    files.prepare(workdir, config.to_dict(), "other", overwrite=False)
    with pytest.raises(UserError, match=f"^{workdir}: was trained on other data than the digits"):
        loop.evaluate_run(workdir, "test")
    fingerprint = splits.load(config).fingerprint
    files.prepare(workdir, config.to_dict(), fingerprint, overwrite=True)
    with pytest.raises(UserError, match=f"^{workdir}: has no checkpoint yet"):
        loop.evaluate_run(workdir, "test")
    with pytest.raises(UserError, match=f"^{workdir}: has no val examples"):
        loop.evaluate_run(workdir, "val")
