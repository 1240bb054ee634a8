"""Members together are what each would be alone."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mnist_jax import config as configs
from mnist_jax import train
from mnist_jax.data import datasets
from mnist_jax.data.splits import Split, Splits
from mnist_jax.runs import groups, space
from mnist_jax.train import trials

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
    config.members.update(own)
    configs.validate(config)
    return config


def together(config, splits):
    """All members of a config's one group, after EPOCHS; metrics of the last."""
    everyone = space.expand(config)
    assert len(space.groups(config, everyone)) == 1
    group = groups.make(config, everyone, splits)
    course = trials.start(group.plan, group.members)
    for epoch in range(1, EPOCHS + 1):
        for first in range(0, len(everyone), group.plan.width):
            index = np.arange(first, first + group.plan.width, dtype=np.int32)
            args = course, group.members, index, np.int32(epoch), group.data
            after, sums, judged = trials.train_epoch(group.plan, *args)
            course = trials.put(course, index, after)
    return everyone, group, course, (sums, judged)


@functools.cache
def recipe_of(fixed, num_train):
    """Of a config as JSON: who differs in nothing that is compiled in shares a program."""
    return train.make_recipe(ConfigDict(json.loads(fixed)), 10, num_train)


def alone(config, member, images, labels):
    """One member by `train` alone."""
    own = space.config_of(config, member)
    hparams, root = train.make_hparams(own), jax.random.key(own.seed)
    fixed = own.to_dict()
    fixed["optim"] |= {"learning_rate": 1.0, "weight_decay": 0.0, "label_smoothing": 0.0}
    fixed["optim"] |= {"momentum": 0.0, "clip": float(own.optim.clip > 0)}
    fixed["optim"]["ema"] = 0.5 if own.optim.ema else 0.0
    strength = fixed["train"]["augment"]
    affine = [strength.pop(name) for name in ("rotation", "zoom", "shift", "shear")]
    strength |= {"rotation": float(any(affine)), "zoom": 0.0, "shift": 0.0, "shear": 0.0}
    fixed = {key: value for key, value in fixed.items() if key not in ("seed", "members")}
    recipe = recipe_of(json.dumps(fixed), len(labels))
    state = init_state(recipe, hparams, root)
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    for _ in range(EPOCHS):
        state, sums = train.train_epoch(recipe, state, images, labels, hparams, root)
    return recipe, state, sums


init_state = jax.jit(train.init_state, static_argnums=0)
train_batches = jax.jit(train.train_batches, static_argnums=0)


def same(courses, i, state):
    # Sums over a batch come in another order; a step or two of Adam's make 1e-7 of it 1e-5.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[i], b, rtol=2e-3, atol=2e-4, err_msg=f"{i}"),
        courses.state,
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
def test_members_at_once_are_members_alone(examples, axis):
    net = CNN if axis == "convolutions" else SMALL
    name = "momentum" if axis in ("momentum", "clip") else "adamw"
    config = make({**net, "optim.name": name}, width=8, **AXES[axis])
    everyone, group, courses, _ = together(config, examples)
    assert group.plan.width == len(everyone) >= 2
    states = [alone(config, member, *examples.train)[1] for member in everyone]
    for i, state in enumerate(states):
        same(courses, i, state)
    kernels = [np.asarray(jax.tree.leaves(train.variables(state))[-1]) for state in states]
    for kernel in kernels[1:]:  # what they differ in does something
        assert not np.allclose(kernels[0], kernel, atol=1e-4)


@pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="the same bits are promised on CPU alone"
)
@pytest.mark.parametrize("overrides", [SMALL, CNN], ids=["mlp", "cnn"])
def test_one_after_the_other_has_the_bits_of_alone(examples, overrides):
    config = make(overrides, seeds=2, width=1)
    everyone, group, courses, _ = together(config, examples)
    assert group.plan.width == 1
    for i, member in enumerate(everyone):
        state = alone(config, member, *examples.train)[1]
        equal = jax.tree.map(lambda a, b: bool((a[i] == b).all()), courses.state, state)  # noqa: B023
        assert all(jax.tree.leaves(equal)), equal


def fold_sets(config, labels, fold):
    held_out = datasets.folds(labels, config.members.folds, config.seed)
    kept = [np.setdiff1d(np.arange(len(labels)), index) for index in held_out]
    return kept[fold][: min(map(len, kept))], held_out[fold]


@pytest.mark.parametrize("width", [1, 4])  # with 4 of 6, two places of the second turn are empty
def test_a_fold_is_training_on_the_others_and_validating_on_it(examples, width):
    config = make({}, folds=3, seeds=2, width=width)
    everyone, _, courses, (_, judged) = together(config, examples)
    images, labels = examples.train
    assert {m.fold for m in everyone} == {0, 1, 2}
    for i, member in enumerate(everyone):
        kept, held_out = fold_sets(config, labels, member.fold)
        assert len(kept) + len(held_out) in (202, 203)
        recipe, state, _ = alone(config, member, images[kept], labels[kept])
        same(courses, i, state)
        first = (len(everyone) - 1) // width * width
        if i >= first:  # the last ones judged
            logits = recipe.model.apply(train.variables(state), jnp.asarray(images[held_out]) / 255)
            correct = (logits.argmax(-1) == labels[held_out]).sum()
            assert int(judged.examples[i - first]) == len(held_out)
            assert abs(int(judged.correct[i - first]) - int(correct)) <= 1


def test_shared_batches_leave_held_out_examples_without_weight(examples):
    config = make({}, folds=3, share_batches=True, width=3)
    everyone, _, courses, (sums, judged) = together(config, examples)
    images, labels = map(jnp.asarray, examples.train)
    held_out = datasets.folds(np.asarray(labels), 3, config.seed)
    assert judged.examples.tolist() == [len(index) for index in held_out]
    recipe, hparams = train.make_recipe(config, 10, len(labels)), train.make_hparams(config)
    for i, member in enumerate(everyone):
        root = jax.random.key(member.seed)
        weights = jnp.ones(len(labels)).at[held_out[i]].set(0)
        state = init_state(recipe, hparams, root)
        for epoch in range(EPOCHS):
            batches = train.draw_batches(root, jnp.int32(epoch), len(labels), recipe.batch_size)
            args = recipe, state, images, labels, batches, hparams, root, weights
            state, _ = train_batches(*args)
        same(courses, i, state)
        seen = np.asarray(batches).ravel()
        assert int(sums.examples[i]) == len(seen) - np.isin(seen, held_out[i]).sum()


def test_seeds_that_share_batches_see_one_order(examples):
    """They differ in how they start, and in nothing else."""
    config = make({}, seeds=3, share_batches=True, width=3)
    everyone, group, courses, _ = together(config, examples)
    order = jax.random.key(config.seed)
    images, labels = map(jnp.asarray, examples.train)
    for i, member in enumerate(everyone):
        recipe, hparams = group.plan.recipe, train.make_hparams(config)
        root = jax.random.key(member.seed)
        state = init_state(recipe, hparams, root)
        for epoch in range(EPOCHS):
            batches = train.draw_batches(order, jnp.int32(epoch), len(labels), recipe.batch_size)
            state, _ = train_batches(recipe, state, images, labels, batches, hparams, root)
        same(courses, i, state)


def test_soft_labels_are_learnt_by_members_as_by_one(examples):
    """Rows of probabilities, as those of a committee that teaches."""
    rng = np.random.default_rng(0)

    def soft(split):
        rows = rng.dirichlet(np.ones(10), len(split.labels)) + np.eye(10)[split.labels]
        return Split(split.images, (rows / 2).astype(np.float32))

    taught = examples._replace(train=soft(examples.train), val=soft(examples.val))
    config = make({}, seeds=2, width=2)
    everyone, group, courses, (sums, judged) = together(config, taught)
    assert group.plan.width == 2
    _, _, hard, _ = together(config, examples)
    for i, member in enumerate(everyone):
        recipe, state, expected = alone(config, member, *taught.train)
        same(courses, i, state)
        np.testing.assert_allclose(sums.loss[i], expected.loss, rtol=1e-3)
        outputs = recipe.model.apply(train.variables(state), jnp.asarray(taught.val.images) / 255)
        losses = -(taught.val.labels * jax.nn.log_softmax(outputs)).sum(axis=-1)
        np.testing.assert_allclose(judged.loss[i], losses.sum(), rtol=1e-3)
    kernels = [jax.tree.leaves(course.state.params)[-1] for course in (courses, hard)]
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
def test_members_that_share_batches_gather_images_once(examples, share):
    config = make({}, seeds=3, width=3, share_batches=share)
    group = groups.make(config, space.expand(config), examples)
    course = trials.start(group.plan, group.members)
    epoch = functools.partial(trials.train_epoch, group.plan)
    args = course, group.members, np.arange(3, dtype=np.int32), np.int32(1), group.data
    gathered = {
        equation.outvars[0].aval.shape
        for equation in equations(jax.make_jaxpr(epoch)(*args).jaxpr)
        if equation.primitive.name == "gather" and equation.outvars[0].aval.dtype == np.uint8
    }
    assert gathered == {(32, 28, 28, 1) if share else (3, 32, 28, 28, 1)}


def test_one_that_diverges_harms_nobody(examples):
    grid = '{"optim.learning_rate": [0.01, 1e38, 0.02]}'
    config = make({"model.activation": "relu", "optim.name": "sgd"}, grid=grid, width=3)
    everyone, _, courses, _ = together(config, examples)
    assert courses.diverged.tolist() == [False, True, False]
    assert courses.active.tolist() == [True, False, True]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((courses.state, courses.best)))
    for i in (0, 2):
        same(courses, i, alone(config, everyone[i], *examples.train)[1])


def test_the_best_epoch_is_kept_and_patience_ends(examples):
    """A rate so high that the first epoch stays the best."""
    config = make({"optim.learning_rate": 3.0}, seeds=2, width=2, patience=1)
    everyone = space.expand(config)
    group = groups.make(config, everyone, examples)
    course = trials.start(group.plan, group.members)
    index = np.arange(2, dtype=np.int32)
    for epoch in range(1, 7):
        before = course._replace(state=None)
        before = jax.tree.map(np.array, before)
        args = course, group.members, index, np.int32(epoch), group.data
        after, _, judged = trials.train_epoch(group.plan, *args)
        course = trials.put(course, index, after)
        errors = np.asarray(judged.examples - judged.correct)
        loss = np.asarray(judged.loss) / np.asarray(judged.examples)
        for i in range(2):
            better = (errors[i], loss[i]) < (before.best_errors[i], before.best_loss[i])
            kept = bool(before.active[i]) and better
            assert int(course.best_epoch[i]) == (epoch if kept else before.best_epoch[i])
            assert bool(course.active[i]) == (bool(before.active[i]) and better)
    assert not course.active.any()


def test_folds_hold_everybody_out_once():
    labels = np.arange(103) % 4
    folds = trials.make_folds(datasets.folds(labels, 5, seed=0), len(labels))
    out = folds.held_out[folds.held_out >= 0]
    assert sorted(out.tolist()) == list(range(103))
    for fold in range(5):
        own = folds.held_out[fold][folds.held_out[fold] >= 0]
        assert (folds.of[own] == fold).all()
        assert not np.isin(folds.kept[fold], own).any()
        assert len(folds.kept[fold]) == 103 - 21
