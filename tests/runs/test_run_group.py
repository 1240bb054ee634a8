"""The host loop of a group: what it says."""

import numpy as np
import pytest
from tiny_sweeps import parse

from mnist_jax.data import splits
from mnist_jax.runs import groups, run_group, space
from mnist_jax.runtime import progress
from mnist_jax.train import trials
from mnist_jax.train.trials import Plan


@pytest.mark.parametrize(
    ("width", "threads", "active", "said"),
    [
        (1, 1, 1, "1 member of 5 epochs"),
        (4, 2, 1, "1 member of 5 epochs"),
        (1, 1, 3, "3 members of 5 epochs, one after the other"),
        (1, 2, 3, "3 members of 5 epochs, one a core, 2 at once"),
        (1, 8, 3, "3 members of 5 epochs, one a core, 3 at once"),
        (4, 1, 3, "3 members of 5 epochs, 3 in one program"),
        (4, 1, 10, "10 members of 5 epochs, 4 in one program"),
        (4, 2, 3, "3 members of 5 epochs, 3 in one program"),
        (4, 2, 10, "10 members of 5 epochs, 4 in one program, 2 programs at once"),
    ],
)
def test_how_many_train_at_a_time(width, threads, active, said):
    plan = Plan(None, width, threads, None, 0)
    assert run_group.introduction(plan, 5, active) == said


class Told(progress.Bar):
    """A bar that remembers what it is told."""

    def __init__(self):
        self.said, self.added, self.lines = [], [], []

    def say(self, what):
        self.said.append(what)

    def tick(self):
        pass

    def add(self, examples):
        self.added.append(examples)

    def done(self, line, shown):
        self.lines.append((line, shown))


def test_an_epoch_counts_who_has_stopped_as_done():
    """Two at a time, of five three: nobody's places are no members."""
    config = parse("--config.members.seeds=5", "--config.members.width=2")
    examples = splits.load(config)
    group = groups.make(config, space.expand(config), examples)
    course, bar = trials.start(group.plan, group.members), Told()
    epoch_of = run_group.compile_epoch(group, course)
    _, rows = run_group.train_epoch(group, course, epoch_of, 1, [0, 2, 3], bar)
    assert [row["member"] for row in rows] == [0, 2, 3]
    assert bar.said == ["epoch 1/4, member 1/3", "epoch 1/4, member 3/3"]
    assert (np.array(bar.added) / len(examples.train.labels)).tolist() == [2, 1, 2]
    ((line, shown),) = bar.lines
    assert line.startswith("epoch 1/4  members 3 of 5  acc ")
    assert shown["members"] == "3 of 5"
