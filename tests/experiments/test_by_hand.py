"""Back-propagation by hand: against automatic differentiation and numerical differences."""

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.optimize import check_grad

from experiments import by_hand
from mnist_jax import config
from mnist_jax.data import splits

gradients, gradients_by_jax, loss = map(
    jax.jit, (by_hand.gradients, by_hand.gradients_by_jax, by_hand.loss)
)


def case(n, pixels, hidden, classes, dtype=np.float32):
    """A net and some examples."""
    random = np.random.default_rng(0)
    shapes = (pixels, hidden), (hidden,), (hidden, classes), (classes,)
    params = by_hand.Params(*(random.normal(0, 0.5, shape).astype(dtype) for shape in shapes))
    X = random.uniform(size=(n, pixels)).astype(dtype)
    return params, by_hand.Examples(
        X, np.eye(classes, dtype=dtype)[random.integers(classes, size=n)]
    )


@pytest.mark.parametrize("shape", [(1, 3, 4, 2), (7, 5, 3, 10), (50, 784, 512, 10)])
def test_gradients_are_those_of_jax(shape):
    params, examples = case(*shape)
    ours, theirs = gradients(params, examples), gradients_by_jax(params, examples)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        assert np.abs(other).max() > 0
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


def test_gradients_are_those_of_numerical_differences():
    with jax.enable_x64(True):
        params, examples = case(6, 4, 5, 3, np.float64)
        flat, unravel = ravel_pytree(params)
        value = jax.jit(lambda x: by_hand.loss(unravel(x), examples))
        by_formula = jax.jit(lambda x: ravel_pytree(by_hand.gradients(unravel(x), examples))[0])
        error = check_grad(value, by_formula, np.asarray(flat))
        size = np.linalg.norm(by_formula(flat))
    assert error < 1e-6 < 1e-2 < size


def test_probabilities_are_a_softmax_however_large_the_logits():
    params, examples = case(5, 4, 3, 6)
    params = params._replace(W2=np.float32(1e4) * params.W2)
    _, log_P = by_hand.forward(params, examples.X)
    np.testing.assert_allclose(np.exp(log_P).sum(axis=1), 1, rtol=1e-5)
    assert np.isfinite(loss(params, examples))
    assert all(np.isfinite(x).all() for x in gradients(params, examples))


def test_training_is_descent_step_by_step():
    params, fit = case(20, 6, 5, 3)
    val = by_hand.Examples(fit.X[::-2], fit.Y[::2])
    trained, curve = by_hand.train(params, 0.5, fit, val, 4, every=1)
    by_twos = by_hand.train(params, 0.5, fit, val, 4, every=2)
    with pytest.raises(ValueError, match="4 iterations are no multiple of 3"):
        by_hand.train(params, 0.5, fit, val, 4, every=3)
    for i in range(5):
        np.testing.assert_allclose(curve.loss[i], loss(params, fit), rtol=1e-5)
        right = by_hand.forward(params, val.X)[1].argmax(1) == val.Y.argmax(1)
        np.testing.assert_allclose(curve.val_accuracy[i], np.mean(right), rtol=1e-6)
        if i < 4:
            steps = gradients_by_jax(params, fit)
            params = jax.tree.map(lambda Q, dQ: Q - np.float32(0.5) * dQ, params, steps)
    for mine, other in zip(trained, params, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5)
    assert (np.diff(curve.loss) < 0).all()
    every_second = trained, by_hand.Curve(*(x[::2] for x in curve))
    for mine, other in zip(*map(jax.tree.leaves, (by_twos, every_second)), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


def test_both_gradients_train_alike():
    params, fit = case(20, 6, 5, 3)
    ours, _ = by_hand.train(params, 1.0, fit, fit, 50)
    theirs, _ = by_hand.train(params, 1.0, fit, fit, 50, gradients=by_hand.gradients_by_jax)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def digits():
    c = config.default()
    c.data.name = "digits"
    examples = splits.load(c)
    few = splits.Split(examples.train.images[:200], examples.train.labels[:200])
    return examples._replace(train=few)


@pytest.fixture(scope="module")
def found(digits):
    return by_hand.study(digits, seeds=2, iterations=20)


def test_the_rate_is_the_best_on_validation(digits, found):
    reached = found["val_accuracy_percent_of_rates"]
    assert reached[f"{found['learning_rate']:g}"] == max(reached.values())
    assert len(reached) == len(by_hand.RATES)
    assert found["relative_difference_from_jax"] < 1e-5
    assert found["val_accuracy_percent"][0][-1] == pytest.approx(max(reached.values()))


def test_the_test_split_decides_nothing(digits, found):
    test = digits.test._replace(labels=(digits.test.labels + 1) % 10)
    other = by_hand.study(digits._replace(test=test), seeds=2, iterations=20)
    judged = {key for key in found if found[key] != other[key]} - {"seconds"}
    assert judged == {"test_accuracy_percent", "recall_percent", "confusion_matrix"}


def test_the_tables(digits, found):
    record = {**found, "versions": {"jax": "0"}, "device": "2 cores", "command": "it"}
    lines = by_hand.to_markdown(record).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| 0", "| 10", "| 20"]
    values = [100 * x for x in (0.5, 0.7)]
    table = by_hand.to_markdown({**record, "accuracy_percent": [[v] * 3 for v in values]})
    assert "| 60.00 ± 14.14 |" in table
    lines = by_hand.recalls_to_markdown(record).splitlines()
    support = np.bincount(digits.test.labels)
    recalls = [float(line.split("|")[2].split("±")[0]) for line in lines[2:13]]
    np.testing.assert_allclose(recalls[:10] @ support / support.sum(), recalls[10], atol=0.01)
    theirs = {"accuracy_percent": [15.1] * 3, "test_percent": [88.0] * 11}
    assert "| reference run, % |" in by_hand.to_markdown({**record, "reference": theirs})
    assert "| 88.00 |" in by_hand.recalls_to_markdown({**record, "reference": theirs})


def test_quick_prints_and_writes_nothing(digits, found, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["by_hand", "--quick"])
    monkeypatch.setattr(by_hand.splits, "load", lambda config: digits)
    monkeypatch.setattr(by_hand, "study", lambda examples, seeds: {**found, "seeds": seeds})
    monkeypatch.setattr(by_hand.tables, "show", None)  # would not be callable
    monkeypatch.setattr(by_hand.tables, "FOLDER", None)
    monkeypatch.setattr(by_hand.xla, "enable_cache", lambda directory: None)
    assert by_hand.main() == 0
    assert "2 seeds on digits" in capsys.readouterr().out
