"""Which settings halving drops."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_jax.runs import halving


def history(*values):
    """Rows of epochs from the validation accuracies of each member, epoch after epoch."""
    return [
        {"member": member, "epoch": epoch, "val_accuracy": value}
        for member, own in enumerate(values)
        for epoch, value in enumerate(own, 1)
    ]


@pytest.mark.parametrize(
    ("values", "settings", "epoch", "dropped"),
    [
        (((0.1,), (0.3,), (0.2,), (0.4,)), (0, 1, 2, 3), 1, {0, 2}),
        (((0.1,), (0.3,), (0.2,)), (0, 1, 2), 1, {0}),
        (((0.2,), (0.2,)), (0, 1), 1, {1}),
        (((0.9,),), (0,), 1, set()),
        # The mean of a setting's members counts.
        (((0.9,), (0.1,), (0.6,), (0.6,)), (0, 0, 1, 1), 1, {0}),
        # Each epoch has its own order, and what came later does not matter.
        (((0.1, 0.9), (0.2, 0.1)), (0, 1), 1, {0}),
        (((0.1, 0.9), (0.2, 0.1)), (0, 1), 2, {1}),
        # Who was dropped earlier is not dropped again: half of the other two are.
        (((0.9,), (0.1, 0.5), (0.2, 0.4)), (0, 1, 2), 2, {2}),
        # One that stopped by its patience counts with its last epoch.
        (((0.9,), (0.1, 0.2), (0.4, 0.4), (0.4, 0.4)), (0, 0, 1, 1), 2, {1}),
        (((None,), (0.1,)), (0, 1), 1, {0}),
    ],
)
def test_the_worse_half_is_dropped(values, settings, epoch, dropped):
    assert halving.worse_half(history(*values), settings, epoch) == dropped


@given(st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=2), min_size=1, max_size=9))
def test_nobody_who_stays_is_worse_than_one_who_goes(values):
    settings = list(range(len(values)))
    dropped = halving.worse_half(history(*values), settings, 1)
    assert len(dropped) == len(values) // 2
    staying = [values[i][0] for i in settings if i not in dropped]
    assert max((values[i][0] for i in dropped), default=-math.inf) <= min(staying)
