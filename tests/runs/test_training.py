"""A plain run: what it computes, selects, writes and evaluates."""

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
from mnist_jax.data import splits
from mnist_jax.runs import evaluation, training
from mnist_jax.train import evaluate
from mnist_jax.workdir import files

READS_PAGES = True

pytestmark = pytest.mark.usefixtures("folder")

MLP = {**LINEAR, "model.name": "mlp", "model.widths": (16,)}


def only(tree):
    """Return the arrays of the only trial."""
    return jax.tree.map(lambda x: x[0], tree)


def predict(config, variables, images):
    return np.asarray(evaluate.predict(recipe_of(config)[0].model, variables, jnp.asarray(images)))


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    """A run whose learning rate rises until accuracy collapses: an early epoch is the best."""
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


# --- the run directory ---------------------------------------------------------------------------


def test_the_files_of_a_run_agree(spoilt):
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


def test_the_best_epoch_is_evaluated(spoilt):
    workdir, config = spoilt
    latest = restored(workdir)
    best_epoch = files.read_json(workdir / files.SUMMARY)["best_epoch"]
    assert (latest.epoch, int(latest.state.best_epoch[0])) == (8, best_epoch)
    images = splits.load(config).test.images
    logits = [
        predict(config, variables, images)
        for variables in (only(latest.state.best), train.variables(only(latest.state.state)))
    ]
    np.testing.assert_array_equal(logits_of(workdir), logits[0])
    assert not np.array_equal(logits_of(workdir), logits[1])


def test_the_test_split_is_evaluated_once_and_changes_nothing(spoilt, tmp_path, monkeypatch):
    """With another test split, training has the same bits."""
    workdir, config = spoilt
    examples = splits.load(config)
    other = splits.Split(examples.test.images[::-1].copy(), np.roll(examples.test.labels, 7))
    evaluated, evaluate_nets = [], evaluation.evaluate_nets

    def watched(recipe, nets, split, class_names):
        evaluated.append((len(nets), len(split.labels)))
        return evaluate_nets(recipe, nets, split, class_names)

    monkeypatch.setattr(evaluation, "evaluate_nets", watched)
    again = tmp_path / "run"
    training.train_run(config, examples._replace(test=other), again, log=lambda line: None)
    assert evaluated == [(1, 360)]
    assert rows(again) == rows(workdir)
    assert bits(restored(again).state) == bits(restored(workdir).state)
    assert not np.array_equal(logits_of(again), logits_of(workdir))


# --- seeds ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_pages")
def test_the_seed_determines_the_run(spoilt, tmp_path):
    workdir, config = spoilt
    train_run(config, tmp_path / "same")
    is_whole_and_the_same(tmp_path / "same", workdir)
    other = config.copy_and_resolve_references()
    other.seed = 1
    train_run(other, tmp_path / "other")
    ours, theirs = (bits(restored(w).state.state.params) for w in (workdir, tmp_path / "other"))
    assert all(ours[path] != theirs[path] for path in ours)


def test_seeds_share_the_split_which_has_a_seed_of_its_own():
    values = splits.load(make_config(LINEAR)).val.images
    other_seed = splits.load(make_config(LINEAR, seed=1)).val.images
    np.testing.assert_array_equal(values, other_seed)
    other_split = splits.load(make_config(LINEAR, data__split_seed=1)).val.images
    assert not np.array_equal(values, other_split)


# --- options of the config -----------------------------------------------------------------------


def test_without_validation(tmp_path):
    config = make_config(LINEAR, data__val_size=0.0)
    lines = []
    summary = train_run(config, tmp_path / "run", log=lines.append)
    assert (summary["num_train"], summary["num_val"]) == (1437, 0)
    assert (summary["best_epoch"], summary["val_accuracy"]) == (3, None)
    assert all(row["val_loss"] is row["val_accuracy"] is None for row in rows(tmp_path / "run"))
    assert len(lines) == 1 + 3  # the data and the epochs
    assert not any("val" in line for line in lines)
    latest = restored(tmp_path / "run")
    assert latest.epoch == latest.state.best_epoch[0] == 3
    images = splits.load(config).test.images
    logits = predict(config, train.variables(only(latest.state.state)), images)
    np.testing.assert_array_equal(logits_of(tmp_path / "run"), logits)
    assert (tmp_path / "run" / files.REPORT).stat().st_size > 10_000


def test_the_average_is_what_is_evaluated(tmp_path):
    config = make_config(LINEAR, train__epochs=1, optim__ema=0.99, optim__learning_rate=0.1)
    summary = train_run(config, tmp_path / "run")
    state = only(restored(tmp_path / "run").state.state)
    recipe, examples = recipe_of(config)
    for split, accuracy in ((examples.val, "val_accuracy"), (examples.test, "test_accuracy")):
        logits, report = evaluate.evaluate(
            recipe.task, recipe.model, {"params": state.ema_params}, *map(jnp.asarray, split)
        )
        assert summary[accuracy] == pytest.approx(float(report.accuracy))
    np.testing.assert_array_equal(logits_of(tmp_path / "run"), logits)
    plain = predict(config, {"params": state.params}, examples.test.images)
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
    assert 0.5 > history[-1]["learning_rate"] > 0.5 * 0.5**7  # it fell in some epochs, not in all


# --- compilation ---------------------------------------------------------------------------------


def test_traced_numbers_are_not_compiled_in(monkeypatch):
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
    monkeypatch.setattr(train.step, "train_step", lambda *args: traced.append(1) or step(*args))
    recipe, examples = recipe_of(config)
    images, labels = (jnp.asarray(part[:256]) for part in examples.train)
    hparams, root = train.make_hparams(config), jax.random.key(0)
    double = jax.tree.map(lambda number: number * 2, hparams)
    variants = {name: hparams._replace(**{name: getattr(double, name)}) for name in hparams._fields}
    results = {}
    for name, values in {"unchanged": hparams, **variants}.items():
        state = train.init_state(recipe, values, root)
        state, *_ = train.train_epoch(recipe, state, images, labels, values, root)
        results[name] = str(bits(train.variables(state)))
    assert len(traced) == 1
    assert len(set(results.values())) == len(results) == 10  # and each of them has an effect
