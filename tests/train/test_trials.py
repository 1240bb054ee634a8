"""Trials trained together equal trials trained alone."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.special import log_softmax

from mnist_jax import config as configs
from mnist_jax import train
from mnist_jax.data import datasets
from mnist_jax.data.splits import Split, Splits
from mnist_jax.runs import groups, space
from mnist_jax.train import trials as vmapped

EPOCHS = 2
SMALL = {
    "data.name": "digits",
    "train.batch_size": 32,
    "train.epochs": EPOCHS,
    "model.name": "mlp",
    "model.widths": (8, 6),
    "model.activation": "tanh",  # no kinks: what is close stays close
}
CNN = {"model.name": "cnn", "model.channels": (3, 4), "model.widths": (5,)}


@pytest.fixture(scope="module")
def examples():
    """Of the smooth kind, some for training and some for validation."""
    found = datasets.load("digits")
    images, labels = found.train_images[:203], found.train_labels[:203]
    rest = Split(found.train_images[203:303], found.train_labels[203:303])
    test = Split(found.test_images[:50], found.test_labels[:50])
    return Splits("digits", found.class_names, "", Split(images, labels), rest, test)


def make(overrides, **own):
    config = configs.default()
    config.update_from_flattened_dict({**SMALL, **overrides})
    config.sweep.update(own)
    configs.validate(config)
    return config


def init(group):
    """NumPy, as what `train_one_epoch` returns: other arrays would compile its programs again."""
    return jax.tree.map(np.array, vmapped.init(group.plan, group.trials))


@jax.jit
def take(trials, index):
    return jax.tree.map(lambda x: x[index], trials)


def train_one_epoch(group, states, index, epoch):
    """Train and validate the trials at `index`, and scatter their states into `states`."""
    state, trials = jax.tree.map(lambda x: x[index], states), take(group.trials, index)
    args = trials, np.int32(epoch), group.data
    after, *measured = vmapped.train_epoch(group.plan, state.state, *args)
    after, metrics = vmapped.end_epoch(
        group.plan, state._replace(state=after), trials, tuple(measured), *args[1:]
    )
    states = jax.tree.map(np.copy, states)
    for old, new in zip(*map(jax.tree.leaves, (states, after)), strict=True):
        old[index] = new
    return states, metrics, measured[0]


def together(config, splits):
    """All trials of a config's one group after EPOCHS; the metrics and sums of the last program."""
    all_trials = space.expand(config)
    assert len(space.groups(config, all_trials)) == 1
    group = groups.make(config, all_trials, splits)
    width = group.plan.width
    states = init(group)
    for epoch in range(1, EPOCHS + 1):
        for first in range(0, len(all_trials), width):
            # Programs are padded with copies of the last trial.
            index = np.minimum(np.arange(first, first + width), len(all_trials) - 1)
            states, measured, sums = train_one_epoch(group, states, index, epoch)
    return all_trials, group, states, (sums, measured)


@functools.cache
def recipe_of(fixed, num_train):
    """Return the recipe of a config as JSON: equal compiled-in values share a program."""
    return train.make_recipe(ConfigDict(json.loads(fixed)), 10, num_train)


def alone(config, trial, images, labels):
    """Train one trial with `train` alone."""
    own = space.config_of(config, trial)
    hparams, root = train.make_hparams(own), jax.random.key(own.seed)
    fixed = own.to_dict()
    fixed["optim"] |= {"learning_rate": 1.0, "weight_decay": 0.0, "label_smoothing": 0.0}
    fixed["optim"] |= {"momentum": 0.0, "clip": float(own.optim.clip > 0)}
    fixed["optim"]["ema"] = 0.5 if own.optim.ema else 0.0
    strength = fixed["train"]["augment"]
    affine = [strength.pop(name) for name in ("rotation", "zoom", "shift", "shear")]
    strength |= {"rotation": float(any(affine)), "zoom": 0.0, "shift": 0.0, "shear": 0.0}
    fixed = {key: value for key, value in fixed.items() if key not in ("seed", "sweep")}
    recipe = recipe_of(json.dumps(fixed), len(labels))
    state = init_state(recipe, hparams, root)
    for _ in range(EPOCHS):
        state, sums, _ = train.train_epoch(recipe, state, images, labels, hparams, root)
    return recipe, state, sums


init_state = jax.jit(train.init_state, static_argnums=0)
train_batches = jax.jit(train.train_batches, static_argnums=0)
draw_batches = jax.jit(train.draw_batches, static_argnums=(2, 3))


@functools.partial(jax.jit, static_argnums=0)
def predict(model, variables, images):
    return model.apply(variables, images.astype(jnp.float32) / 255)


def same(states, i, state):
    # Sums over a batch are added in another order; a step or two of Adam's make 1e-7 of it 1e-5.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[i], b, rtol=2e-3, atol=2e-4, err_msg=f"{i}"),
        states.state,
        state,
    )


AXES = {
    "optimizer": {
        "settings": """[{}, {"optim.learning_rate": 1e-2}, {"optim.weight_decay": 0.1},
        {"optim.label_smoothing": 0.2}, {"model.init_scale": 0.5}]"""
    },
    "dropout": {"grid": '{"model.dropout": [0.0, [0.0, 0.5], 0.3]}'},
    "augmentation": {
        "settings": """[{}, {"train.augment.rotation": 20.0}, {"train.augment.zoom": 0.2},
        {"train.augment.shift": 0.2}, {"train.augment.shear": 20.0}, {"train.augment.erase": 0.9},
        {"train.augment.flip": 0.5}]"""
    },
    "convolutions": {"grid": '{"model.conv_dropout": [0.0, [0.4, 0.0]]}'},
    "momentum": {"grid": '{"optim.momentum": [0.0, 0.5, 0.9]}'},
    "clip": {"grid": '{"optim.clip": [0.1, 1.0, 100.0]}'},
    "ema": {"grid": '{"optim.ema": [0.1, 0.3, 0.5]}'},
}


@pytest.mark.parametrize("axis", AXES)
def test_vmapped_trials_equal_trials_alone(examples, axis):
    net = CNN if axis == "convolutions" else SMALL
    name = "momentum" if axis in ("momentum", "clip") else "adamw"
    config = make({**net, "optim.name": name}, width=8, **AXES[axis])
    all_trials, group, states, _ = together(config, examples)
    assert group.plan.width == len(all_trials) >= 2
    expected = [alone(config, trial, *examples.train)[1] for trial in all_trials]
    for i, state in enumerate(expected):
        same(states, i, state)
    kernels = [np.asarray(jax.tree.leaves(train.variables(state))[-1]) for state in expected]
    for kernel in kernels[1:]:  # the values that differ have an effect
        assert not np.allclose(kernels[0], kernel, atol=1e-4)


@pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="the same bits are promised on CPU alone"
)
@pytest.mark.parametrize("overrides", [SMALL, CNN], ids=["mlp", "cnn"])
def test_one_after_the_other_gives_the_bits_of_trials_alone(examples, overrides):
    config = make(overrides, seeds=2, width=1)
    all_trials, group, states, _ = together(config, examples)
    assert group.plan.width == 1
    for i, trial in enumerate(all_trials):
        state = alone(config, trial, *examples.train)[1]
        equal = jax.tree.map(lambda a, b: np.array_equal(a[i], b), states.state, state)  # noqa: B023
        assert all(jax.tree.leaves(equal)), equal


def fold_sets(config, labels, fold):
    held_out = datasets.folds(labels, config.sweep.folds, config.data.split_seed)
    kept = [np.setdiff1d(np.arange(len(labels)), index) for index in held_out]
    return kept[fold][: min(map(len, kept))], held_out[fold]


@pytest.mark.parametrize("width", [1, 4])  # of 6: the second program of 4 is padded
def test_a_trial_of_a_fold_trains_on_the_others_and_validates_on_it(examples, width):
    config = make({}, folds=3, seeds=2, width=width)
    all_trials, _, states, (_, measured) = together(config, examples)
    images, labels = examples.train
    assert {trial.fold for trial in all_trials} == {0, 1, 2}
    for i, trial in enumerate(all_trials):
        kept, held_out = fold_sets(config, labels, trial.fold)
        assert len(kept) + len(held_out) in (202, 203)
        recipe, state, _ = alone(config, trial, images[kept], labels[kept])
        same(states, i, state)
        first = (len(all_trials) - 1) // width * width
        if i >= first:  # trials of the last program
            logits = predict(recipe.model, train.variables(state), images[held_out])
            correct = int((np.asarray(logits).argmax(-1) == labels[held_out]).sum())
            counted = float(measured.val_accuracy[i - first]) * len(held_out)
            assert counted == pytest.approx(round(counted), abs=1e-4)  # of all that are held out
            assert abs(round(counted) - correct) <= 1
            assert float(measured.val_score[i - first]) == float(measured.val_accuracy[i - first])


def test_shared_batches_leave_held_out_examples_without_weight(examples):
    config = make({}, folds=3, share_batches=True, width=3)
    all_trials, _, states, (sums, measured) = together(config, examples)
    images, labels = examples.train
    held_out = datasets.folds(labels, 3, config.data.split_seed)
    counted = np.asarray(measured.val_accuracy) * [len(index) for index in held_out]
    np.testing.assert_allclose(counted, counted.round(), atol=1e-4)
    recipe, hparams = train.make_recipe(config, 10, len(labels)), train.make_hparams(config)
    for i, trial in enumerate(all_trials):
        root = jax.random.key(trial.seed)
        weights = np.ones(len(labels), np.float32)
        weights[held_out[i]] = 0
        state = init_state(recipe, hparams, root)
        for epoch in range(EPOCHS):
            batches = draw_batches(root, jnp.int32(epoch), len(labels), recipe.batch_size)
            weighted = train.Examples(images, labels, weights)
            state, *_ = train_batches(recipe, state, weighted, batches, hparams, root)
        same(states, i, state)
        seen = np.asarray(batches).ravel()
        assert int(sums.examples[i]) == len(seen) - np.isin(seen, held_out[i]).sum()


def test_seeds_that_share_batches_see_one_order(examples):
    """They differ in their initial parameters only."""
    config = make({}, seeds=3, share_batches=True, width=3)
    all_trials, group, states, _ = together(config, examples)
    order = jax.random.key(config.seed)
    images, labels = examples.train
    for i, trial in enumerate(all_trials):
        recipe, hparams = group.plan.recipe, train.make_hparams(config)
        root = jax.random.key(trial.seed)
        state = init_state(recipe, hparams, root)
        for epoch in range(EPOCHS):
            batches = draw_batches(order, jnp.int32(epoch), len(labels), recipe.batch_size)
            shared = train.Examples(images, labels)
            state, *_ = train_batches(recipe, state, shared, batches, hparams, root)
        same(states, i, state)


def test_trials_learn_soft_labels_as_one_alone_does(examples):
    """Rows of probabilities, such as those of an ensemble in distillation."""
    rng = np.random.default_rng(0)

    def soft(split):
        rows = rng.dirichlet(np.ones(10), len(split.labels)) + np.eye(10)[split.labels]
        return Split(split.images, (rows / 2).astype(np.float32))

    taught = examples._replace(train=soft(examples.train), val=soft(examples.val))
    config = make({}, seeds=2, width=2)
    all_trials, group, states, (sums, measured) = together(config, taught)
    assert group.plan.width == 2
    _, _, hard, _ = together(config, examples)
    for i, trial in enumerate(all_trials):
        recipe, state, expected = alone(config, trial, *taught.train)
        same(states, i, state)
        np.testing.assert_allclose(sums.loss[i], expected.loss, rtol=1e-3)
        outputs = predict(recipe.model, train.variables(state), taught.val.images)
        losses = -(taught.val.labels * log_softmax(outputs, axis=-1)).sum(axis=-1)
        np.testing.assert_allclose(measured.val_loss[i], losses.mean(), rtol=1e-3)
    kernels = [jax.tree.leaves(x.state.params)[-1] for x in (states, hard)]
    assert not np.allclose(*kernels, atol=1e-4)


def equations(jaxpr):
    """All of a program, those within others too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.mark.parametrize("share", [True, False])
def test_trials_that_share_batches_gather_images_once(examples, share):
    config = make({}, seeds=3, width=3, share_batches=share)
    group = groups.make(config, space.expand(config), examples)
    states = vmapped.init(group.plan, group.trials)
    epoch = functools.partial(vmapped.train_epoch, group.plan)
    args = states.state, group.trials, np.int32(1), group.data
    gathered = {
        equation.outvars[0].aval.shape
        for equation in equations(jax.make_jaxpr(epoch)(*args).jaxpr)
        if equation.primitive.name == "gather" and equation.outvars[0].aval.dtype == np.uint8
    }
    assert gathered == {(32, 28, 28, 1) if share else (3, 32, 28, 28, 1)}


def test_a_diverged_trial_does_not_affect_others(examples):
    grid = '{"optim.learning_rate": [0.01, 1e38, 0.02]}'
    config = make({"model.activation": "relu", "optim.name": "sgd"}, grid=grid, width=3)
    all_trials, _, states, _ = together(config, examples)
    assert states.diverged.tolist() == [False, True, False]
    assert states.active.tolist() == [True, False, True]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(states.best))
    for i in (0, 2):
        same(states, i, alone(config, all_trials[i], *examples.train)[1])


@pytest.mark.parametrize(
    ("score", "loss", "better"),
    [
        (0.9, 5.0, True),  # the score decides first
        (0.7, 0.1, False),
        (0.8, 0.9, True),  # of equal scores the lower loss
        (0.8, 1.0, False),
        (0.8, 1.1, False),
    ],
)
def test_an_epoch_is_better_by_its_score_and_then_by_a_lower_loss(score, loss, better):
    found = vmapped.is_better(*map(jnp.float32, (score, loss, 0.8, 1.0)))
    assert bool(found) == better


def test_the_best_epoch_is_kept_and_patience_stops_trials(examples):
    """The learning rate is so high that the first epoch stays the best."""
    config = make({"optim.learning_rate": 3.0, "train.patience": 1}, seeds=2, width=2)
    group = groups.make(config, space.expand(config), examples)
    states = init(group)
    index = np.arange(2)
    for epoch in range(1, 7):
        before = states
        states, measured, _ = train_one_epoch(group, before, index, epoch)
        errors = 1 - np.asarray(measured.val_accuracy)
        loss = np.asarray(measured.val_loss)
        for i in range(2):
            better = (errors[i], loss[i]) < (1 - before.best_score[i], before.best_loss[i])
            kept = bool(before.active[i]) and better
            assert int(states.best_epoch[i]) == (epoch if kept else before.best_epoch[i])
            assert bool(states.active[i]) == kept
            own = train.variables(states.state) if kept else before.best
            for ours, theirs in zip(*map(jax.tree.leaves, (states.best, own)), strict=True):
                np.testing.assert_array_equal(ours[i], theirs[i])
    assert not states.active.any()


def test_folds_hold_every_example_out_once():
    labels = np.arange(103) % 4
    folds = vmapped.make_folds(datasets.folds(labels, 5, seed=0), len(labels))
    folds = jax.tree.map(np.asarray, folds)
    out = folds.held_out[folds.held_out >= 0]
    assert sorted(out.tolist()) == list(range(103))
    for fold in range(5):
        own = folds.held_out[fold][folds.held_out[fold] >= 0]
        assert (folds.of[own] == fold).all()
        assert not np.isin(folds.train[fold], own).any()
        assert len(folds.train[fold]) == 103 - 21
