"""What the report proposes to try next."""

import pytest
from reports import make_run

from mnist_jax.report import run_page


def test_next_commands_change_one_field_and_the_directory():
    run = make_run()
    steps = run_page.next_commands(run["summary"], run["history"], run["config"], run["command"])
    start = "python -m mnist_jax.main --config=configs/cnn.py --workdir=runs/a"
    assert [line for _, line in steps] == [
        f"{start}-epochs-8 --config.train.epochs=8",
        f"{start}-weight_decay-0.3 --config.optim.weight_decay=0.3",
        f"{start}-seed-1 --config.seed=1",
    ]
    assert run_page.next_commands(run["summary"], run["history"], {}, run["command"]) == []


@pytest.mark.parametrize(
    ("shift", "decay", "name", "expected"),
    [
        (0.0, 0.0, "adam", "train.augment.shift=0.1"),
        (0.1, 0.0, "adam", "optim.weight_decay=0.0001"),
        (0.1, 0.0, "adamw", "optim.weight_decay=0.01"),
        (0.1, 0.1, "adam", "optim.weight_decay=0.3"),
    ],
)
def test_overfitting_is_met_by_augmentation_then_by_weight_decay(shift, decay, name, expected):
    run = make_run()
    config = {
        "train": {"augment": {"shift": shift}},
        "optim": {"weight_decay": decay, "name": name},
    }
    (step,) = run_page.next_commands(run["summary"], run["history"], config, run["command"])
    assert step[0].startswith("It does 5.0 points better")
    assert step[1].endswith(f" --config.{expected}")
    run["history"][-1]["train_accuracy"] = 0.855
    assert not run_page.next_commands(run["summary"], run["history"], config, run["command"])


def test_override_replaces_an_earlier_one_and_keeps_quotes():
    command = "python main.py --config.seed=3 --workdir 'my runs/' --config.data.name='csv:a b.csv'"
    expected = "python main.py --workdir 'my runs-seed-4' '--config.data.name=csv:a b.csv'"
    assert run_page.override(command, "seed", 4) == f"{expected} --config.seed=4"
