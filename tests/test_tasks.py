"""Labels; losses and decisions against SciPy and scikit-learn; classifiers that share nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from scipy.special import expit, log_softmax
from sklearn.metrics import classification_report, hinge_loss, log_loss
from sklearn.utils.multiclass import _ovr_decision_function

from mnist_jax import config as configs
from mnist_jax import tasks, train
from mnist_jax.analysis import metrics
from mnist_jax.train import evaluate
from mnist_jax.types import UserError

EVERY = [(name, loss) for name, entry in tasks.TASKS.items() for loss in entry.losses]


def build(name, loss=None, classes=10):
    config = configs.default()
    config.task.update(name=name, loss=loss)
    return tasks.build(config.task, classes)


def drawn(outputs, classes, n=50, seed=0):
    rng = np.random.default_rng(seed)
    return (
        jnp.asarray(rng.normal(0, 2, (n, outputs)), jnp.float32),
        jnp.asarray(rng.integers(0, classes, n), jnp.int32),
    )


@settings(max_examples=25)
@given(seed=st.integers(0, 999), classes=st.integers(2, 12), smoothing=st.floats(0, 0.9))
def test_cross_entropy(seed, classes, smoothing):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 5, (7, classes)).astype(np.float32)
    answers = rng.integers(0, classes, 7).astype(np.int32)
    targets = np.eye(classes)[answers] * (1 - smoothing) + smoothing / classes
    expected = -(targets * log_softmax(logits.astype(np.float64), axis=1)).sum(1)
    ours = tasks.cross_entropy(jnp.asarray(logits), jnp.asarray(answers), jnp.float32(smoothing))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_soft_targets_that_are_certain_are_classes():
    logits, classes = drawn(10, 10)
    soft = jax.nn.one_hot(classes, 10)
    task = build("multiclass")
    np.testing.assert_array_equal(task.loss(logits, soft, 0.1), task.loss(logits, classes, 0.1))
    np.testing.assert_array_equal(task.correct(logits, soft), task.correct(logits, classes))


def test_extreme_logits_stay_finite():
    logits = jnp.asarray([[1e4, -1e4], [-1e4, 1e4]], jnp.float32)
    losses = tasks.cross_entropy(logits, jnp.asarray([0, 0], jnp.int32))
    np.testing.assert_allclose(losses, [0.0, 2e4])


def test_the_first_of_equals_is_chosen():
    outputs, classes = jnp.asarray([[0.0, 1.0, 1.0], [2.0, 2.0, 1.0]]), jnp.asarray([1, 0])
    assert build("multiclass", classes=3).correct(outputs, classes).all()


def test_hinges_are_scikit_learns():
    outputs, classes = drawn(10, 10)
    ours = build("multiclass", "hinge").loss(outputs, classes, 0.0)
    np.testing.assert_allclose(ours.mean(), hinge_loss(classes, outputs), rtol=1e-5)
    outputs, yes = drawn(1, 2)
    ours = build("binary", "hinge", 2).loss(outputs, yes, 0.0)
    np.testing.assert_allclose(ours.mean(), hinge_loss(yes, outputs[:, 0]), rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_logistic_questions_are_scikit_learns(smoothing):
    outputs, classes = drawn(10, 10)
    ours = build("one_vs_rest", "logistic").loss(outputs, classes, smoothing)
    yes = np.eye(10)[np.asarray(classes)]
    p = expit(np.asarray(outputs, np.float64))
    certain = [log_loss(yes[:, k], p[:, k]) for k in range(10)]
    flipped = [log_loss(1 - yes[:, k], p[:, k]) for k in range(10)]
    expected = (1 - smoothing / 2) * np.sum(certain) + smoothing / 2 * np.sum(flipped)
    np.testing.assert_allclose(ours.mean(), expected, rtol=1e-5)


def test_pairs_vote_as_in_scikit_learn():
    outputs, _ = drawn(45, 10)
    pairs = np.asarray(outputs, np.float64)
    # There the second class of a pair is the yes.
    expected = _ovr_decision_function(pairs < 0, -pairs, 10)
    np.testing.assert_allclose(tasks.vote(outputs), expected, rtol=1e-5, atol=1e-6)


def test_a_pair_learns_nothing_from_other_classes():
    outputs, classes = drawn(45, 10)
    gradients = jax.grad(lambda x: build("one_vs_one", "squared").loss(x, classes, 0.0).sum())
    table = tasks.pairs(10)
    learns = np.asarray(gradients(outputs) != 0)
    np.testing.assert_array_equal(learns, table[:, np.asarray(classes)].T != 0)


@pytest.mark.parametrize(("name", "loss"), EVERY)
def test_every_task_has_a_consistent_report(name, loss):
    names = [str(i) for i in range(2 if name in ("binary", "multilabel") else 10)]
    task = build(name, loss, len(names))
    outputs, classes = drawn(task.num_outputs, 2 if name == "binary" else 10)
    images = jax.random.uniform(jax.random.key(0), (50, 28, 28, 1))
    if name == "multilabel":
        classes = jnp.stack([classes > 5, classes % 2 == 1], axis=1).astype(jnp.int32)
    targets = task.targets(images, classes)
    report = task.evaluate(outputs, targets)
    np.testing.assert_allclose(report.loss, task.loss(outputs, targets, 0.0).mean(), rtol=1e-5)
    if task.correct is None:
        assert np.isnan(report.accuracy)
    else:
        np.testing.assert_allclose(report.accuracy, task.correct(outputs, targets).mean())
    plain = metrics.to_python(jax.device_get(report), names)
    probable = loss in ("softmax", "logistic") and name in ("multiclass", "one_vs_rest", "binary")
    assert (plain.get("ece") is not None) == probable


@pytest.mark.parametrize(
    ("name", "loss", "formula"),
    [
        ("multiclass", "squared", lambda z, yes: ((z - yes) ** 2).sum(1)),
        ("one_vs_rest", "squared", lambda z, yes: ((z - (2 * yes - 1)) ** 2).sum(1)),
        ("multilabel", "squared", lambda z, yes: ((z - (2 * yes - 1)) ** 2).sum(1)),
        ("multilabel", "hinge", lambda z, yes: np.maximum(0, 1 - (2 * yes - 1) * z).sum(1)),
        (
            "multilabel",
            "logistic",
            lambda z, yes: -np.log(np.where(yes, expit(z), expit(-z))).sum(1),
        ),
    ],
)
def test_losses_are_their_formulas(name, loss, formula):
    outputs, classes = drawn(10, 10)
    yes = np.eye(10, dtype=np.int32)[np.asarray(classes)]
    if name == "multilabel":
        yes |= np.random.default_rng(1).integers(0, 2, yes.shape, np.int32)
    targets = jnp.asarray(yes) if name == "multilabel" else classes
    ours = build(name, loss).loss(outputs, targets, 0.0)
    np.testing.assert_allclose(ours, formula(np.asarray(outputs, np.float64), yes), rtol=1e-4)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_losses_of_pixels_are_their_formulas(loss):
    outputs, _ = drawn(784, 2)
    clean = np.random.default_rng(1).random(outputs.shape)
    z = np.asarray(outputs, np.float64)
    cross_entropy = -(clean * np.log(expit(z)) + (1 - clean) * np.log(expit(-z)))
    expected = (cross_entropy if loss == "logistic" else (z - clean) ** 2).mean(1)
    ours = build("denoise", loss).loss(outputs, jnp.asarray(clean, jnp.float32), 0.0)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_labels_are_evaluated_as_by_scikit_learn():
    outputs, _ = drawn(3, 2)
    truth = np.random.default_rng(1).integers(0, 2, (50, 3)).astype(np.int32)
    report = build("multilabel", classes=3).evaluate(outputs, jnp.asarray(truth))
    ours = metrics.to_python(jax.device_get(report), ["a", "b", "c"])
    said = np.asarray(outputs > 0)
    theirs = classification_report(truth, said, output_dict=True, zero_division=0)
    for i, row in enumerate(ours["per_class"]):
        assert row["f1"] == pytest.approx(theirs[str(i)]["f1-score"])
        assert row["support"] == theirs[str(i)]["support"]
    for average in ("macro", "weighted"):
        expected = theirs[f"{average} avg"]
        assert ours[average]["precision"] == pytest.approx(expected["precision"])
        assert ours[average]["recall"] == pytest.approx(expected["recall"])
    assert ours["accuracy"] == pytest.approx((said == truth).all(1).mean())


def test_the_probabilities_of_two_are_the_sigmoids():
    outputs, _ = drawn(1, 2)
    scores = build("binary", classes=2).scores(outputs)
    np.testing.assert_allclose(
        jax.nn.softmax(scores)[:, 1], expit(np.asarray(outputs))[:, 0], rtol=1e-5
    )


def test_one_versus_rest_is_ten_trainings_alone():
    """Ten hinges in one program: each has the weights that its own program gives it."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (64, 28, 28, 1), dtype=np.uint8))
    classes = jnp.asarray(rng.integers(0, 10, 64), jnp.int32)

    def trained(name, answers, kernel):
        config = configs.default()
        config.model.name, config.task.name, config.task.loss = "linear", name, "hinge"
        config.optim.update(name="momentum", learning_rate=0.01)
        config.train.batch_size = 16
        recipe = train.make_recipe(config, 10, 64)
        hparams, root = train.make_hparams(config), jax.random.key(0)
        state = train.init_state(recipe, hparams, root)
        state.params["Dense_0"]["kernel"] = kernel
        state, *_ = train.train_epoch(recipe, state, images, answers, hparams, root)
        return state.params["Dense_0"]["kernel"]

    start = jax.random.normal(jax.random.key(1), (784, 10)) / 28
    together = trained("one_vs_rest", classes, jnp.copy(start))
    assert float(jnp.abs(together - start).max()) > 1e-3
    for k in (0, 7):
        alone = trained("binary", (classes == k).astype(jnp.int32), start[:, k : k + 1])
        np.testing.assert_allclose(together[:, k], alone[:, 0], rtol=1e-4, atol=1e-6)


def test_noise_is_whole_grey_levels_up_to_its_number():
    image = jnp.zeros((28, 28, 1))
    noise = 255 * build("denoise").corrupt(jax.random.key(0), image)
    np.testing.assert_allclose(noise, jnp.round(noise), atol=1e-4)
    assert float(noise.min()) == 0
    assert 97 < float(noise.max()) < 99.5
    assert 45 < float(noise.mean()) < 54


def test_the_noise_of_an_image_depends_on_its_place_alone():
    task = build("denoise")
    images = jnp.zeros((7, 28, 28, 1), jnp.uint8)
    whole = evaluate.inputs(images, jnp.arange(7), task.corrupt)
    part = evaluate.inputs(images[3:5], jnp.arange(3, 5), task.corrupt)
    np.testing.assert_array_equal(whole[3:5], part)
    assert len(np.unique(np.asarray(whole), axis=0)) == 7


CLASSES = np.array([5, 0, 7, 9, 1, 5], np.int32)
NAMES = tuple("0123456789")


def task_config(**fields) -> ConfigDict:
    config = configs.default()
    config.task.update(fields)
    configs.validate(config)
    return config.task


def test_most_tasks_keep_the_classes():
    for name in ("multiclass", "one_vs_rest", "one_vs_one", "denoise"):
        found, names = tasks.relabel(task_config(name=name), CLASSES, NAMES)
        np.testing.assert_array_equal(found, CLASSES)
        assert names == NAMES


def test_labels_of_binary():
    found, names = tasks.relabel(task_config(name="binary"), CLASSES, NAMES)
    assert (found.tolist(), names) == ([1, 0, 0, 0, 0, 1], ("not 5", "5"))
    found, names = tasks.relabel(task_config(name="binary", positive=(0, 9)), CLASSES, NAMES)
    assert (found.tolist(), names) == ([0, 1, 0, 1, 0, 0], ("not 0 or 9", "0 or 9"))


def test_labels_of_multilabel():
    found, names = tasks.relabel(task_config(name="multilabel"), CLASSES, NAMES)
    assert names == ("large", "odd")
    np.testing.assert_array_equal(found, np.stack([CLASSES >= 7, CLASSES % 2 == 1], 1))
    for labels in ({"five": (5,)}, '{"five": [5]}'):
        found, names = tasks.relabel(task_config(name="multilabel", labels=labels), CLASSES, NAMES)
        assert (found[:, 0].tolist(), names) == ([1, 0, 0, 0, 0, 1], ("five",))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "multi"}, r"config.task.name: no 'multi'; there are multiclass, "),
        ({"name": "one_vs_one", "loss": "softmax"}, "has no 'softmax'; it has hinge, logistic"),
        ({"name": "binary", "positive": ()}, "config.task.positive: give the positive classes"),
        ({"name": "binary", "positive": (10,)}, "positive: 10 is not a class; classes are 0 to 9"),
        ({"name": "binary", "positive": tuple(range(10))}, "are all classes; leave some out"),
        ({"name": "multilabel", "labels": "large"}, "labels: must map names to classes"),
        ({"name": "multilabel", "labels": {}}, "must map names to classes"),
        ({"name": "multilabel", "labels": {"large": []}}, "must map names to classes"),
        ({"name": "multilabel", "labels": {"large": [7, "8"]}}, "labels: '8' is not a class"),
        ({"name": "multilabel", "labels": '{"large": [7, "8"]}'}, "labels: '8' is not a class"),
        (
            {"name": "denoise", "noise": 0},
            "config.task.noise: 0 is impossible; it must be 1 or more",
        ),
    ],
)
def test_an_impossible_task_is_refused_in_one_line(fields, message):
    with pytest.raises(UserError, match=message) as error:
        tasks.relabel(task_config(**fields), CLASSES, NAMES)
    assert "\n" not in str(error.value)


def test_a_hinge_is_not_smoothed():
    config = configs.default()
    config.task.name, config.optim.label_smoothing = "one_vs_rest", 0.1
    with pytest.raises(UserError, match="label_smoothing: the loss 'hinge' of 'one_vs_rest' has"):
        configs.validate(config)
