"""Training: a golden step, an epoch as one program, and what it must be equal to."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.utils.class_weight import compute_class_weight

from mnist_jax import config as configs
from mnist_jax import train
from mnist_jax.analysis import metrics
from mnist_jax.data import augment
from mnist_jax.runtime.prng import stream
from mnist_jax.train import evaluate, weights
from mnist_jax.types import UserError

N, BATCH = 50, 16  # 3 steps per epoch; 2 examples are left out, different ones each time


SMALL = {"model.name": "mlp", "model.widths": (8,)}


def make(**overrides):
    config = configs.default()
    config.update_from_flattened_dict(
        {"train.batch_size": BATCH, **({} if "model.name" in overrides else SMALL), **overrides}
    )
    configs.validate(config)
    recipe = train.make_recipe(config, 10, N)
    hparams, root = train.make_hparams(config), jax.random.key(config.seed)
    return recipe, hparams, root, init_state(recipe, hparams, root)


init_state = jax.jit(train.init_state, static_argnums=0)
train_step = jax.jit(train.train_step, static_argnums=(0, 5))
train_batches = jax.jit(train.train_batches, static_argnums=0)
draw_batches = jax.jit(train.draw_batches, static_argnums=(2, 3))
end_epoch = jax.jit(train.end_epoch, static_argnums=0)
learning_rate = jax.jit(train.learning_rate, static_argnums=0)


EVERYTHING = {
    "model.name": "cnn",
    "model.channels": (2, 3),
    "model.widths": (8,),
    "model.dropout": (0.3,),
    "train.augment.rotation": 10.0,
    "train.augment.erase": 0.5,
    "optim.name": "adamw",
    "optim.schedule": "one_cycle",
    "optim.weight_decay": 0.01,
    "optim.label_smoothing": 0.1,
    "optim.clip": 1.0,
    "optim.ema": 0.9,
}


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N, 28, 28, 1), dtype=np.uint8)
    return images, rng.integers(0, 10, N, dtype=np.int32)


on_cpu = pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="the same bits are promised on CPU alone"
)


def leaves_equal(a, b):
    same = jax.tree.map(lambda x, y: np.array_equal(x, y), a, b)
    return all(jax.tree.leaves(same))


def copy(state):
    return jax.tree.map(np.array, state)


def batch_of(examples, count=BATCH):
    return train.Examples(*(x[:count] for x in examples))


def test_golden_step(examples):
    """One step of softmax regression by gradient descent, by hand."""
    recipe, hparams, root, state = make(**{"model.name": "linear", "optim.name": "sgd"})
    batch = batch_of(examples)
    after, sums, _ = train_step(recipe, state, batch, hparams, root)
    kernel, bias = (np.asarray(state.params["Dense_0"][k], np.float64) for k in ("kernel", "bias"))
    labels = np.asarray(batch.labels)
    x = np.asarray(batch.images, np.float64).reshape(BATCH, -1) / 255
    logits = x @ kernel + bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    error = (p - np.eye(10)[labels]) / BATCH
    message = "the step changed: if it was meant to, say so in the commit and write it out here"
    ours = after.params["Dense_0"]
    np.testing.assert_allclose(
        ours["kernel"], kernel - 1e-3 * x.T @ error, atol=1e-6, err_msg=message
    )
    np.testing.assert_allclose(ours["bias"], bias - 1e-3 * error.sum(0), atol=1e-6, err_msg=message)
    nll = -np.log(p[np.arange(BATCH), labels])
    np.testing.assert_allclose(sums.loss, nll.sum(), rtol=1e-5)
    assert int(sums.correct) == (logits.argmax(1) == labels).sum()
    assert int(sums.examples) == BATCH
    assert int(after.step) == 1


def test_an_epoch_is_its_steps_in_the_drawn_order(examples):
    """The second epoch has another order than the first."""
    recipe, hparams, root, state = make(**EVERYTHING)
    state = state._replace(step=jnp.int32(3))
    images, labels = examples
    expected, total = copy(state), metrics.zeros()
    order = np.asarray(jax.random.permutation(stream(root, "shuffle", 1), N))
    for indices in order[: 3 * BATCH].reshape(3, BATCH):
        batch = train.Examples(images[indices], labels[indices])
        expected, sums, _ = train_step(recipe, expected, batch, hparams, root)
        total = metrics.merge(total, sums)
    state, sums, _ = train.train_epoch(recipe, state, images, labels, hparams, root)
    close = jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), state, expected
    )
    assert jax.tree.leaves(close) == []  # every leaf was compared, and there is the same tree
    np.testing.assert_allclose(sums.loss, total.loss, rtol=1e-5)
    assert int(sums.examples) == 3 * BATCH
    assert int(state.step) == 6


def test_each_epoch_has_its_own_order():
    root = make()[2]
    first, second = (np.asarray(draw_batches(root, jnp.int32(epoch), N, BATCH)) for epoch in (0, 1))
    assert (first != second).any()
    assert set(first.ravel()) != set(second.ravel())  # others are left out
    for batches in (first, second):
        assert len(set(batches.ravel())) == 3 * BATCH


def test_examples_without_weight_count_nowhere(examples):
    """Held-out examples have none where trials share batches."""
    recipe, hparams, root, state = make(**SMALL | {"optim.name": "sgd"})
    counted = 10
    batch, alone = batch_of(examples), batch_of(examples, counted)
    weights = (np.arange(BATCH) < counted).astype(np.float32)
    changed = batch._replace(images=batch.images.copy(), labels=batch.labels.copy())
    changed.images[counted:] = changed.labels[counted:] = 9

    def step(batch):
        return train_step(recipe, state, batch, hparams, root, True)

    after, sums, norms = step(batch._replace(weights=weights))
    others, same_sums, same_norms = step(changed._replace(weights=weights))
    expected_state, expected, expected_norms = step(alone)
    assert leaves_equal(after.params, others.params)
    assert leaves_equal((sums, norms), (same_sums, same_norms))
    for ours, theirs in zip(
        *map(jax.tree.leaves, (after.params, expected_state.params)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_allclose(sums.loss, expected.loss, rtol=1e-5)
    np.testing.assert_allclose(norms, expected_norms, rtol=1e-4)
    assert (int(sums.correct), int(sums.examples)) == (int(expected.correct), counted)


def test_the_input_is_corrupted_and_the_target_is_not(examples):
    """Of black images a linear net's weights learn nothing; its biases learn the clean pixels."""
    recipe, hparams, root, state = make(
        **{"model.name": "linear", "optim.name": "sgd", "task.name": "denoise"}
    )
    black = recipe.task._replace(corrupt=lambda key, image: jnp.zeros_like(image))
    recipe = recipe._replace(task=black)
    batch = batch_of(examples)
    after, *_ = train_step(recipe, state, batch, hparams, root)
    before, after = (s.params["Dense_0"] for s in (state, after))
    np.testing.assert_array_equal(after["kernel"], before["kernel"])
    clean = np.asarray(batch.images, np.float64).reshape(BATCH, -1) / 255
    expected = before["bias"] - 1e-3 * 2 / 784 * (before["bias"] - clean.mean(0))
    np.testing.assert_allclose(after["bias"], expected, rtol=1e-4, atol=1e-9)


def test_the_config_sets_how_edges_are_filled(examples):
    batch = batch_of(examples)
    losses = []
    for fill in ("nearest", "constant"):
        recipe, hparams, root, state = make(
            **{"train.augment.shift": 0.5, "train.augment.fill": fill}
        )
        losses.append(float(train_step(recipe, state, batch, hparams, root)[1].loss))
    assert losses[0] != losses[1]


@on_cpu
def test_same_seed_same_bits_other_seed_other_bits(examples):
    recipe, hparams, _, _ = make(**EVERYTHING)

    def trained(seed):
        root = jax.random.key(seed)
        state = init_state(recipe, hparams, root)
        return train.train_epoch(recipe, state, *examples, hparams, root)

    assert leaves_equal(trained(0), trained(0))
    assert not leaves_equal(trained(0), trained(1))


@on_cpu
def test_resuming_from_a_state_gives_the_same_bits(examples):
    recipe, hparams, root, state = make(**EVERYTHING)
    state, *_ = train.train_epoch(recipe, state, *examples, hparams, root)
    saved = copy(state)
    unbroken = train.train_epoch(recipe, state, *examples, hparams, root)
    resumed = train.train_epoch(recipe, saved, *examples, hparams, root)
    assert leaves_equal(unbroken, resumed)


def test_vmapped_trials_equal_trials_alone(examples):
    """Seeds, rates, decay, smoothing and augmentation strengths as one vmapped axis."""
    recipe, hparams, _, _ = make(**EVERYTHING)
    roots = jax.random.split(jax.random.key(7), 3)
    scale = np.asarray([1.0, 0.5, 2.0], np.float32)
    trials = jax.tree.map(lambda value: np.multiply.outer(scale, value), hparams)

    def trained(root, hparams, images, labels):
        state = init_state(recipe, hparams, root)
        # Not the jitted function: under vmap its donation has nothing to donate to.
        return train.train_epoch.__wrapped__(recipe, state, images, labels, hparams, root)

    together = jax.jit(jax.vmap(trained, (0, 0, None, None)))(roots, trials, *examples)
    one = jax.jit(trained)
    for i in range(3):
        alone = one(roots[i], jax.tree.map(lambda value: value[i], trials), *examples)  # noqa: B023
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a[i], b, rtol=1e-3, atol=1e-4),  # noqa: B023
            jax.device_get(together),
            alone,
        )


def test_it_learns(examples):
    recipe, hparams, root, state = make(
        **SMALL | {"model.widths": (64,), "optim.learning_rate": 0.003}
    )
    losses = []
    for _ in range(30):
        state, sums, _ = train.train_epoch(recipe, state, *examples, hparams, root)
        losses.append(float(sums.loss) / int(sums.examples))
    assert losses[-1] < losses[0] / 5


def test_the_average_of_parameters(examples):
    recipe, hparams, root, state = make(**{"optim.ema": 0.15})
    batch = batch_of(examples)
    expected = copy(state.params)
    for t in range(3):
        state, *_ = train_step(recipe, state, batch, hparams, root)
        decay = min(0.15, (1 + t) / (10 + t))
        params = jax.tree.map(np.asarray, state.params)
        expected = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, expected, params)  # noqa: B023
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state.ema_params, expected
    )
    assert train.variables(state)["params"] is state.ema_params


def test_without_an_average_the_parameters_are_evaluated():
    state = make()[3]
    assert state.ema_params is None
    assert train.variables(state)["params"] is state.params


def test_plateau_lowers_the_rate(examples):
    recipe, hparams, _, state = make(
        **{"optim.schedule": "plateau", "optim.decay": 0.5, "optim.decay_epochs": 1}
    )
    rates = []
    for loss in (1.0, 1.0, 0.5, 0.6):
        state = end_epoch(recipe, state, jnp.float32(loss))
        rates.append(float(learning_rate(recipe, state, hparams)))
    np.testing.assert_allclose(rates, [1e-3, 0.5e-3, 0.5e-3, 0.25e-3], rtol=1e-6)


@pytest.mark.parametrize("schedule", ["plateau", "step", "exponential"])
def test_no_rate_falls_below_the_floor(schedule):
    """Without one, 250 epochs divide the rate by 1e25."""
    decay = {"optim.schedule": schedule, "optim.decay": 0.1, "optim.decay_epochs": 1}
    for floor in (0.0, 1e-5):
        recipe, hparams, _, state = make(**decay, **{"optim.min_learning_rate": floor})
        for epoch in range(1, 9):
            state = end_epoch(recipe, state, jnp.float32(1.0))
            state = state._replace(step=jnp.int32(epoch * (N // BATCH)))
        rate = float(learning_rate(recipe, state, hparams))
        assert rate == np.float32(1e-5) if floor else rate < 1e-9


def test_a_floor_above_the_peak_is_refused():
    with pytest.raises(UserError, match=r"^config.optim.min_learning_rate: 0.1 is above "):
        make(**{"optim.schedule": "step", "optim.min_learning_rate": 0.1})


@pytest.mark.parametrize("net", ["mlp", "cnn"])
@pytest.mark.parametrize("precision", [None, "default", "high"])
def test_every_product_of_a_net_and_of_its_gradients_has_the_precision(examples, net, precision):
    own = {"model.name": net, "model.widths": (8,), "model.matmul_precision": precision}
    recipe, hparams, root, state = make(**own)
    step = jax.make_jaxpr(train.train_step, static_argnums=(0, 5))
    predict = jax.make_jaxpr(evaluate.predict, static_argnums=0)
    programs = (
        step(recipe, state, batch_of(examples), hparams, root, False),
        predict(recipe.model, train.variables(state), examples[0]),
    )
    for program in programs:
        found = re.findall(r" precision=\(?(?:Precision\.)?(\w+)", str(program))
        assert len(found) >= 2
        assert set(found) == {(precision or "highest").upper()}  # the tests' own, see conftest


def test_smoothing_changes_the_gradient_not_the_reported_loss(examples):
    batch = batch_of(examples)
    results = []
    for smoothing in (0.0, 0.3):
        recipe, hparams, root, state = make(**{"optim.label_smoothing": smoothing})
        results.append(train_step(recipe, state, batch, hparams, root))
    (plain, plain_sums, _), (smooth, smooth_sums, _) = results
    assert float(plain_sums.loss) == float(smooth_sums.loss)
    assert not leaves_equal(plain.params, smooth.params)


def test_augmentation_is_in_the_step(examples):
    batch = batch_of(examples)
    recipe, hparams, root, state = make(**{"train.augment.shift": 0.2})
    shifted, *_ = train_step(recipe, state, batch, hparams, root)
    plain = recipe._replace(augment=None)
    still, *_ = train_step(plain, state, batch, hparams, root)
    assert not leaves_equal(shifted.params, still.params)
    # A strength of nothing is no augmentation at all.
    calm = hparams._replace(augment=jax.tree.map(np.zeros_like, hparams.augment))
    unmoved, *_ = train_step(recipe, state, batch, calm, root)
    assert leaves_equal(unmoved.params, still.params)


@pytest.mark.parametrize(
    "noise", [{"model.dropout": (0.5,)}, {"train.augment.shift": 0.2}], ids=["dropout", "augment"]
)
def test_each_step_has_its_own_noise(examples, noise):
    batch = batch_of(examples)
    recipe, hparams, root, state = make(**SMALL, **noise)
    one, *_ = train_step(recipe, state, batch, hparams, root)
    later = state._replace(step=jnp.int32(1))
    other, *_ = train_step(recipe, later, batch, hparams, root)
    assert not leaves_equal(one.params, other.params)


def test_batch_normalisation_statistics_are_carried(examples):
    recipe, hparams, root, state = make(**{"model.name": "cnn", "model.channels": (2,)})
    before = jax.tree.map(np.asarray, state.batch_stats)
    state, *_ = train.train_epoch(recipe, state, *examples, hparams, root)
    assert not leaves_equal(before, state.batch_stats)
    assert set(train.variables(state)) == {"params", "batch_stats"}


def test_the_gradient_is_that_of_optax_on_the_whole_batch(examples):
    """The mean over the batch, so that the rate does not depend on its size."""
    recipe, hparams, root, state = make(**{"optim.name": "sgd", "optim.learning_rate": 1.0})
    batch = batch_of(examples)

    def loss(params):
        pixels = augment.normalize(jnp.asarray(batch.images))
        logits = recipe.model.apply({"params": params}, pixels)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()

    gradients = jax.jit(jax.grad(loss))(state.params)
    after, *_ = train_step(recipe, state, batch, hparams, root)
    jax.tree.map(
        lambda p, g, q: np.testing.assert_allclose(np.subtract(p, g), q, rtol=1e-4, atol=1e-6),
        state.params,
        gradients,
        after.params,
    )


def norms_by_hand(recipe, state, batch, hparams):
    """By Optax, for a net without noise and one rate."""

    def loss(params):
        pixels = augment.normalize(jnp.asarray(batch.images))
        logits = recipe.model.apply({"params": params}, pixels)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()

    @jax.jit
    def norms(state):
        gradients = jax.grad(loss)(state.params)
        optimizer = recipe.optimizer(hparams, hparams.learning_rate)
        updates, _ = optimizer.update(gradients, state.opt_state, state.params)
        return [optax.tree.norm(tree) for tree in (gradients, state.params, updates)]

    return norms(state)


@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_the_norms_of_a_step(examples, name):
    """Of its gradients, before clipping; of the parameters before it; of what it adds to them."""
    recipe, hparams, root, state = make(**{"optim.name": name, "optim.clip": 0.01})
    batch = batch_of(examples)
    after, _, norms = train_step(recipe, state, batch, hparams, root, True)
    expected = norms_by_hand(recipe, state, batch, hparams)
    np.testing.assert_allclose(norms, expected, rtol=1e-5)
    assert float(norms.gradients) > 0.01  # clipping changes the update only
    moved = jax.tree.map(np.subtract, after.params, state.params)
    moved = np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(moved)))
    np.testing.assert_allclose(norms.updates, moved, rtol=1e-3)


@on_cpu
def test_norms_do_not_change_the_bits_of_training(examples):
    recipe, hparams, root, state = make(**EVERYTHING)
    step = jax.jit(train.train_step, static_argnums=0)
    batch = batch_of(examples)
    (with_norms, _, norms), (without, _, none) = (
        step(recipe, state, batch, hparams, root, jnp.bool_(last)) for last in (True, False)
    )
    assert leaves_equal(with_norms, without)
    assert [float(norm) for norm in none] == [0, 0, 0]
    assert all(norm > 0 for norm in norms)


def test_an_epoch_returns_the_norms_of_its_last_step(examples):
    recipe, hparams, root, state = make(**{"optim.name": "adamw"})
    images, labels = examples
    expected = copy(state)
    batches = np.asarray(draw_batches(root, jnp.int32(0), N, BATCH))
    for index in batches[:-1]:
        batch = train.Examples(images[index], labels[index])
        expected, *_ = train_step(recipe, expected, batch, hparams, root)
    last = train.Examples(images[batches[-1]], labels[batches[-1]])
    *_, norms = train.train_epoch(recipe, state, images, labels, hparams, root)
    np.testing.assert_allclose(norms, norms_by_hand(recipe, expected, last, hparams), rtol=1e-4)


@pytest.mark.parametrize("given", ["balanced", (1.0, 2.0, *[4.0] * 8)])
def test_class_weights_weigh_the_loss_and_not_its_measurements(examples, given):
    """A step of gradient descent, by hand; only ratios of the weights matter."""
    images, _ = examples
    labels = np.repeat(np.arange(4, dtype=np.int32), [30, 10, 6, 4])
    own = {"model.name": "linear", "optim.name": "sgd", "train.batch_size": N}
    recipe, hparams, root, state = make(**own, **{"train.class_weights": given})
    of_class = np.asarray(given) if given != "balanced" else 1 / np.bincount(labels, minlength=4)
    shares = of_class[labels] / of_class[labels].sum()
    kernel, bias = (np.asarray(state.params["Dense_0"][k], np.float64) for k in ("kernel", "bias"))
    x = np.asarray(images, np.float64).reshape(N, -1) / 255
    logits = x @ kernel + bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    error = (p - np.eye(10)[labels]) * shares[:, None]
    loss = -np.log(p[np.arange(N), labels]).sum()
    batches = np.arange(N)[None]
    after, sums, _ = train_batches(
        recipe, state, train.Examples(images, labels), batches, hparams, root
    )
    ours = after.params["Dense_0"]["bias"]
    np.testing.assert_allclose(ours, bias - 1e-3 * error.sum(0), atol=1e-6)
    np.testing.assert_allclose(sums.loss, loss, rtol=1e-4)
    assert sums.examples == N


def test_balanced_weights_are_scikit_learns():
    labels = np.repeat([0, 2, 3], [30, 10, 6])
    ours = weights.make("balanced", 4)(jnp.asarray(labels), None)
    theirs = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    np.testing.assert_allclose(
        ours / ours[0], theirs[np.searchsorted([0, 2, 3], labels)] / theirs[0]
    )
    held_out = jnp.asarray(labels != 0, jnp.float32)  # these do not count
    found = weights.make("balanced", 4)(jnp.asarray(labels), held_out)
    np.testing.assert_allclose(found, np.where(labels == 0, 0, np.where(labels == 2, 1, 10 / 6)))


def test_a_weight_for_each_class():
    with pytest.raises(UserError, match=r"^config.train.class_weights: 2 weights for 10 classes; "):
        make(**{"train.class_weights": (1.0, 2.0)})
    assert weights.read("1,2") == weights.read("(1, 2)") == weights.read([1, 2]) == (1.0, 2.0)
