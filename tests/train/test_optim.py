"""Optimizers against their formulas in NumPy, schedules against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mnist_jax import config as configs
from mnist_jax.train import optim
from mnist_jax.train.state import Hparams

RATE, DECAY = 0.1, 0.05
OTHER = {"name": {"schedule": "constant"}, "schedule": {"name": "sgd"}}


def config(**overrides):
    c = configs.default().optim
    c.update(overrides)
    return c


def hparams(c, weight_decay=DECAY):
    numbers = {"learning_rate": RATE, "weight_decay": weight_decay, "label_smoothing": 0.0}
    known = optim.fields(c)
    numbers |= {key: known[key] for key in ("momentum", "clip", "ema")} | {"init_scale": 1.0}
    traced = {key: jnp.float32(number) for key, number in numbers.items()}
    return Hparams(**traced, dropout=None, augment=None)


def trajectory(c, weight_decay=DECAY, steps=3):
    """Weights after steps whose gradients are 2p + step."""
    p = {"w": jnp.asarray([[1.0, -2.0, 0.5]])}
    state = optim.optimizer(c, hparams(c, weight_decay), jnp.float32(RATE)).init(p)
    for step in range(steps):
        chain = optim.optimizer(c, hparams(c, weight_decay), jnp.float32(RATE))
        gradient = jax.tree.map(lambda w: 2 * w + jnp.float32(step), p)  # noqa: B023
        updates, state = chain.update(gradient, state, p)
        p = optax.apply_updates(p, updates)
    return np.asarray(p["w"])[0]


@pytest.mark.parametrize(("kind", "key"), [("name", "b1"), ("schedule", "decay")])
def test_an_optional_key_has_the_default_of_the_component_that_reads_it(monkeypatch, kind, key):
    """Even where the last component that was registered has another default for it."""
    registry = optim.OPTIMIZERS if kind == "name" else optim.SCHEDULES
    option = optim.OPTIONS[key]._replace(default=0.625)
    monkeypatch.setitem(registry, "mine", optim.Entry(lambda *args: None, {key: option}))
    assert optim.fields({kind: "mine", key: None, **OTHER[kind]})[key] == 0.625


def by_hand(name, steps=3, b1=0.9, b2=0.999, eps=1e-8):
    p = np.array([1.0, -2.0, 0.5])
    m, v = np.zeros(3), np.zeros(3)
    for step in range(steps):
        g = 2 * p + step
        if name != "adamw":
            g = g + DECAY * p
        if name == "sgd":
            p = p - RATE * g
        elif name == "momentum":
            m = 0.9 * m + g
            p = p - RATE * m
        else:
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            t = step + 1
            update = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
            p = p - RATE * (update + (DECAY * p if name == "adamw" else 0))
    return p


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_each_optimizer_with_weight_decay(name):
    np.testing.assert_allclose(trajectory(config(name=name)), by_hand(name), rtol=1e-4)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
@pytest.mark.parametrize("decayed", [False, True])
def test_biases_and_scales_are_decayed_only_on_demand(name, decayed):
    """Their arrays have one axis; those of weights have more."""
    c = config(name=name, weight_decay=DECAY, decay_biases=decayed)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "scale": jnp.ones(3)}
    plain = jax.tree.map(jnp.zeros_like, params)  # gradients
    chain = optim.optimizer(c, hparams(c), jnp.float32(RATE))
    updates, _ = chain.update(plain, chain.init(params), params)
    assert {key: bool((u != 0).all()) for key, u in updates.items()} == {
        "kernel": True,
        "bias": decayed,
        "scale": decayed,
    }


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_decay_of_its_averages_is_the_configs(name):
    ours = trajectory(config(name=name, b1=0.5, b2=0.9))
    np.testing.assert_allclose(ours, by_hand(name, b1=0.5, b2=0.9), rtol=1e-4)


def test_clipping_limits_the_whole_gradient():
    c = config(name="sgd", clip=0.5)
    start, p = np.array([1.0, -2.0, 0.5]), trajectory(c, weight_decay=0.0, steps=1)
    np.testing.assert_allclose(np.linalg.norm(p - start), RATE * 0.5, rtol=1e-5)


def curve(name, epochs=10, steps=5, **overrides):
    fraction = optim.schedule(config(schedule=name, **overrides), epochs, steps)
    return np.array([fraction(jnp.int32(step)) for step in range(epochs * steps)])


def test_constant_and_plateau_stay():
    for name in ("constant", "plateau"):
        np.testing.assert_array_equal(curve(name), 1)


def test_cosine_rises_linearly_then_falls_to_nothing():
    fractions = curve("cosine", warmup=0.2)
    np.testing.assert_allclose(fractions[:11], np.linspace(0, 1, 11), atol=1e-6)
    t = np.arange(40) / 40
    np.testing.assert_allclose(fractions[10:], (1 + np.cos(np.pi * t)) / 2, atol=1e-6)


def test_cosine_without_warmup_starts_at_its_peak():
    assert curve("cosine", warmup=0.0)[0] == 1


def test_one_cycle_peaks_where_the_warmup_ends():
    fractions = curve("one_cycle", warmup=0.3)
    np.testing.assert_allclose(fractions[0], 1 / 25, rtol=1e-5)
    assert fractions.argmax() == 15
    assert fractions[15] == 1
    assert fractions[-1] < 0.01


def test_step_and_exponential_lose_a_factor_every_so_many_epochs():
    epochs = np.arange(50) / 5
    falls = {"decay": 0.5, "decay_epochs": 4}
    np.testing.assert_allclose(curve("step", **falls), 0.5 ** np.floor(epochs / 4), rtol=1e-5)
    np.testing.assert_allclose(curve("exponential", **falls), 0.5 ** (epochs / 4), rtol=1e-5)


@pytest.mark.parametrize("name", optim.SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("steps", [1, 2])
def test_the_shortest_runs_have_finite_rates(name, warmup, epochs, steps):
    fractions = curve(name, epochs=epochs, steps=steps, warmup=warmup)
    assert np.isfinite(fractions).all()
    assert ((fractions >= 0) & (fractions <= 1)).all()


def test_plateau_cuts_the_rate_after_epochs_without_improvement():
    reduce = optim.plateau(config(schedule="plateau", decay=0.5, decay_epochs=2))
    state, scales = reduce.init({"w": jnp.zeros(1)}), []
    for loss in (1.0, 0.8, 0.9, 0.85, 0.7, 0.7, 0.7, 0.7):
        _, state = reduce.update({}, state, value=jnp.float32(loss))
        scales.append(float(state.scale))
    assert scales == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(("loss", "better"), [(0.99989, True), (0.99991, False)])
def test_an_improvement_is_a_loss_0_01_percent_lower(loss, better):
    reduce = optim.plateau(config(schedule="plateau", decay=0.5, decay_epochs=1))
    state = reduce.init({"w": jnp.zeros(1)})
    for value in (1.0, loss):
        _, state = reduce.update({}, state, value=jnp.float32(value))
    assert float(state.scale) == (1.0 if better else 0.5)
    assert "0.01% below" in optim.OPTIONS["decay_epochs"].help


def test_other_schedules_have_no_plateau():
    assert optim.plateau(config(schedule="cosine")) is None


def test_numbers_are_traced():
    traces = 0

    @jax.jit
    def second_update(hparams, rate, p):
        nonlocal traces
        traces += 1
        chain = optim.optimizer(config(name="momentum", clip=1.0), hparams, rate)
        _, state = chain.update(p, chain.init(p), p)
        return chain.update(p, state, p)[0]["w"][0, 0]

    p = {"w": jnp.ones((1, 3))}
    updates = {
        float(second_update(hparams(config(**{"clip": 10.0, **own}), decay), jnp.float32(rate), p))
        for rate, decay, own in (
            (0.1, 0.0, {}),
            (0.2, 0.0, {}),
            (0.1, 0.5, {}),
            (0.1, 0.0, {"momentum": 0.5}),
            (0.1, 0.0, {"clip": 1.0}),
        )
    }
    assert traces == 1
    assert len(updates) == 5


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other backends need no barriers")
@pytest.mark.parametrize(("kernel", "barriers"), [((3, 2), 1), ((3, 3, 1, 2), 2)])
def test_gradients_are_there_before_they_are_used(kernel, barriers):
    """Those of dense layers all at once, the others each for itself."""
    params = {"kernel": jnp.ones(kernel), "bias": jnp.ones(2)}
    c = config(name="adam")
    adam = optim.optimizer(c, hparams(c), jnp.float32(RATE))
    program = jax.make_jaxpr(adam.update)(params, adam.init(params), params)
    assert str(program).count(" = optimization_barrier") == barriers
