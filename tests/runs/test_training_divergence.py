"""A run that diverges: one line reports it, and nothing of that epoch is saved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import LINEAR, ROOT, make_config, recipe_of, restored, rows, train_run

from mnist_jax import main, train
from mnist_jax.types import UserError
from mnist_jax.workdir import files

pytestmark = pytest.mark.usefixtures("folder")

# Parameters that grow by 1e10 a step, a step an epoch: overflow comes in the fourth.
EXPLODING = {
    **LINEAR,
    "train.epochs": 4,
    "optim.name": "sgd",
    "optim.learning_rate": 1.0,
    "optim.weight_decay": 1e10,
}


def test_a_learning_rate_of_a_million(tmp_path, capsys):
    argv = [
        f"--config={ROOT}/configs/mlp.py:digits",
        "--config.model.widths=(16,16,16)",
        "--config.optim.name=sgd",
        "--config.optim.schedule=constant",
        "--config.optim.learning_rate=1e6",
        f"--workdir={tmp_path}/run",
    ]
    assert main.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "mlp on digits: 1,293 train, 144 val, 360 test\n"
    assert err == (
        "error: diverged: the loss of epoch 1 is not finite; earlier checkpoints are kept; "
        "try a lower config.optim.learning_rate, or config.optim.clip=1\n"
    )
    assert not (tmp_path / "run" / files.SUMMARY).exists()
    assert main.main(argv) == 2  # nothing was saved to resume from


@pytest.mark.parametrize(
    ("val_size", "num_train"), [(0.1, 1293), (0.0, 1437)], ids=["validation", "parameters"]
)
def test_the_last_step_of_an_epoch_diverges(tmp_path, val_size, num_train):
    """The training loss is finite: it is that of the parameters before the step."""
    config = make_config(EXPLODING, data__val_size=val_size, train__batch_size=num_train)
    with pytest.raises(UserError, match=r"^diverged: the loss of epoch 4 is not finite"):
        train_run(config, tmp_path / "run")
    assert not (tmp_path / "run" / files.SUMMARY).exists()
    assert [row["epoch"] for row in rows(tmp_path / "run")] == [1, 2, 3]
    latest = restored(tmp_path / "run")
    assert latest.epoch == 3
    state = jax.tree.map(lambda x: jnp.asarray(x[0]), latest.state.state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    recipe, examples = recipe_of(config)
    on_device = tuple(map(jnp.asarray, examples.train))
    _, sums, _ = train.train_epoch(
        recipe, state, *on_device, train.make_hparams(config), jax.random.key(0)
    )
    assert np.isfinite(float(sums.loss))
