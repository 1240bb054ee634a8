"""The host loop of a group: what it says."""

import pytest

from mnist_jax import run_group
from mnist_jax.members import Plan


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
