"""The training loop of a group: its log, its rows, and its programs."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_sweeps import parse, rows, run

from mnist_jax import train
from mnist_jax.data import splits
from mnist_jax.data.augment import normalize
from mnist_jax.runs import groups, loop, space
from mnist_jax.runtime import progress, xla
from mnist_jax.train import trials as vmapped
from mnist_jax.train.trials import Plan
from mnist_jax.workdir import files
from mnist_jax.workdir.writer import Writer


@pytest.mark.parametrize(
    ("width", "threads", "active", "line"),
    [
        (1, 1, 1, "1 trial of 5 epochs"),
        (4, 2, 1, "1 trial of 5 epochs"),
        (1, 1, 3, "3 trials of 5 epochs, one after the other"),
        (1, 2, 3, "3 trials of 5 epochs, one per core, 2 at once"),
        (1, 8, 3, "3 trials of 5 epochs, one per core, 3 at once"),
        (4, 1, 3, "3 trials of 5 epochs, 3 in one program"),
        (4, 1, 10, "10 trials of 5 epochs, 4 in one program"),
        (4, 2, 3, "3 trials of 5 epochs, 3 in one program"),
        (4, 2, 10, "10 trials of 5 epochs, 4 in one program, 2 programs at once"),
    ],
)
def test_the_introduction_says_how_many_trials_are_trained_at_a_time(width, threads, active, line):
    plan = Plan(None, width, threads, 0)
    assert loop.introduction(plan, 5, active) == line


class FakeBar(progress.Bar):
    """A bar that records its calls."""

    def __init__(self, *args):
        self.described, self.added, self.lines = [], [], []

    def describe(self, what):
        self.described.append(what)

    def tick(self):
        pass

    def add(self, examples):
        self.added.append(examples)

    def start_epoch(self, examples):
        self.started = examples

    def end_epoch(self, line):
        self.lines.append(line)

    def write(self, line):
        pass

    def __exit__(self, *exc_info):
        pass


def test_stopped_trials_count_as_done_in_an_epoch(folder, monkeypatch):
    """Two trials per program, and three of five active: padding is no trial."""
    config = parse("--config.sweep.seeds=5", "--config.sweep.width=2")
    examples = splits.load(config)
    group = groups.make(config, space.expand(config), examples)
    group = group._replace(settings=[0, 1, 0, 0, 1])
    bar = FakeBar()
    monkeypatch.setattr(progress, "Bar", lambda *args: bar)
    writer = Writer(folder / "five", lambda line: None)
    trained = loop.train_group(group, writer, until=1, dropped={1})
    assert [row["trial"] for row in trained.rows] == [0, 2, 3]
    assert bar.described == ["epoch 1/4, trial 1/3", "epoch 1/4, trial 3/3"]
    assert (np.array(bar.added) / len(examples.train.labels)).tolist() == [2, 1, 2]
    assert bar.started == 3 * len(examples.train.labels)
    (line,) = bar.lines
    assert line.startswith("epoch 1/4  trials 3 of 5  acc ")
    first = vmapped.init(group.plan, group.trials).state.step
    steps = len(examples.train.labels) // config.train.batch_size
    assert (trained.states.state.step - first).tolist() == [steps, 0, steps, steps, 0]


@pytest.fixture
def compiled(monkeypatch):
    """The names of the programs that are compiled."""
    names = []
    compile_lowered = xla.compile_lowered

    def counted(lowered, **options):
        names.append(re.match(r"module @jit_(\w+)", lowered.as_text())[1])
        return compile_lowered(lowered, **options)

    monkeypatch.setattr(xla, "compile_lowered", counted)
    return names


@pytest.mark.parametrize(
    ("name", "argv", "shapes"),
    [
        ("plain", [], 1),
        ("seeds", ["--config.sweep.seeds=3"], 1),
        ("rates", ['--config.sweep.grid={"optim.learning_rate": [0.1, 0.2, 0.3]}'], 1),
        ("one program", ["--config.sweep.seeds=3", "--config.sweep.width=3"], 1),
        ("padded", ["--config.sweep.seeds=3", "--config.sweep.width=2"], 1),
        ("shapes", ['--config.sweep.grid={"model.widths": [[4], [8]]}'], 2),
    ],
)
def test_each_shape_is_compiled_once(folder, compiled, name, argv, shapes):
    run(parse(*argv, "--config.train.epochs=2"), folder / f"compiled {name}")
    assert compiled.count("train_epoch") == compiled.count("end_epoch") == shapes
    assert compiled.count("evaluate") == 1  # of the chosen setting


@pytest.mark.parametrize(
    ("name", "argv"),
    [("plain", []), ("vmapped", ["--config.sweep.seeds=2", "--config.sweep.width=2"])],
)
def test_rows_have_the_norms_of_the_last_step_of_each_epoch(folder, name, argv):
    """Compared with a step by hand, from the state that the steps before lead to."""
    plain = ["--config.model.dropout=(0.0,)", "--config.optim.schedule=constant"]
    config = parse("--config.train.epochs=2", *plain, *argv)
    examples = splits.load(config)
    run(config, folder / f"norms {name}")
    history = rows(folder / f"norms {name}", files.METRICS)
    recipe = train.make_recipe(config, 10, len(examples.train.labels))
    hparams = train.make_hparams(config)
    images, labels = map(jnp.asarray, examples.train)
    step = jax.jit(train.train_step, static_argnums=0)

    def loss(params, batch):
        logits = recipe.model.apply({"params": params}, normalize(batch.images))
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()

    for seed in range(config.sweep.seeds):
        root = jax.random.key(seed)
        state = train.init_state(recipe, hparams, root)
        for epoch in range(2):
            order = train.draw_batches(root, jnp.int32(epoch), len(labels), recipe.batch_size)
            for index in order:
                batch = train.Examples(images[index], labels[index])
                before = state
                state, *_ = step(recipe, state, batch, hparams, root)
            gradients = jax.grad(loss)(before.params, batch)
            optimizer = recipe.optimizer(hparams, hparams.learning_rate)
            updates, _ = optimizer.update(gradients, before.opt_state, before.params)
            norms = [optax.tree.norm(tree) for tree in (gradients, before.params, updates)]
            (row,) = [
                row
                for row in history
                if row["epoch"] == epoch + 1 and row.get("trial", seed) == seed
            ]
            found = [row[f"{what}_norm"] for what in ("gradient", "parameter", "update")]
            assert found == pytest.approx([float(norm) for norm in norms], rel=1e-2)
