"""How fast are many trials together, compared with single runs, PyTorch and scikit-learn?

    python -m experiments.members_speed [--name=cpu] [--nets ...] [--members ...] [--repeats=3]

Throughput: an epoch of all trials, as `runs.loop` trains them (with and without shared batches),
compared with an epoch of one plain run, ours and PyTorch's, for each trial; all interleaved.
Cross-validation: ten folds compared with scikit-learn's `cross_val_score`, on the real data, from
the call to the scores.
"""

import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from configs import study
from experiments import figures, tables
from experiments.members_speed import report
from experiments.speed import worker
from experiments.timing import EPOCH, epoch_of_trials, random_splits
from mnist_jax import config as configs
from mnist_jax.data import splits
from mnist_jax.data.splits import Splits
from mnist_jax.models import registry
from mnist_jax.runs import groups, loop, select, space
from mnist_jax.runtime import xla
from mnist_jax.workdir.writer import Writer

NETS: dict[str, dict[str, Any]] = {
    "linear": {"name": "linear"},
    "mlp_128": {"name": "mlp", "widths": (128,)},
    "mlp_512_256": study.MODELS["mlp_512_256"],
    "small cnn": {**study.MODELS["cnn_3x3"], "channels": (8, 16), "widths": (32,)},
}
COUNTS = (1, 2, 5, 10, 20, 50, 100)
BATCH_SIZE = 128
PEERS = ("ours", "pytorch")


def members_config(model: Mapping[str, Any], count: int, share_batches: bool) -> ConfigDict:
    """Return the config of `count` seeds of a net."""
    config = configs.default()
    config.model.update(model)
    config.train.batch_size = BATCH_SIZE
    config.sweep.update(seeds=count, share_batches=share_batches)
    return config


def throughput(net: str, counts: Sequence[int], num_train: int, repeats: int) -> dict[str, Any]:
    """Return the seconds of an epoch of each number of trials and of one run of each peer."""
    size = num_train // BATCH_SIZE * BATCH_SIZE
    examples = random_splits(size)
    ours, failed = {}, {}
    for count in counts:
        for share in (False, True) if count > 1 else (False,):
            ours[count, share] = epoch_of_trials(members_config(NETS[net], count, share), examples)
    fields = {**NETS[net], **registry.fields(NETS[net])}
    turns: dict[Any, list[float]] = {}
    with ExitStack() as stack:
        peers = {}
        for peer in PEERS:
            job = worker.Job(peer, fields, BATCH_SIZE, size)
            cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            peers[peer] = stack.enter_context(worker.spawn(job, cache))
        for turn in range(1 + repeats):  # the first one warms up
            for key, (_, train) in ours.items():
                start = time.perf_counter()
                train()
                if turn:
                    turns.setdefault(key, []).append(time.perf_counter() - start)
            for peer, process in peers.items():
                if peer in failed:
                    continue
                try:
                    seconds = worker.ask(process, "train")["seconds"]
                    if turn:
                        turns.setdefault(peer, []).append(seconds)
                except worker.Failed as error:
                    failed[peer] = str(error)
    scale = EPOCH / size
    medians = {key: statistics.median(values) * scale for key, values in turns.items()}
    rows = [
        {
            "members": count,
            "width": ours[count, False][0],
            "epoch_seconds": medians[count, False],
            "width_sharing": ours.get((count, True), (None,))[0],
            "epoch_seconds_sharing": medians.get((count, True)),
        }
        for count in counts
    ]
    alone = {peer: medians[peer] for peer in PEERS if peer in medians}
    return {"net": net, "rows": rows, "alone_epoch_seconds": alone, "failed": failed}


def cross_validation(dataset: str, epochs: int, repeats: int) -> list[dict[str, Any]]:
    """Cross-validate softmax regression and an MLP: seconds and accuracy, ours and scikit-learn's.

    Rows also have the seconds of ten runs of PyTorch; None if it is not installed.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import SGDClassifier
    from sklearn.model_selection import cross_val_score
    from sklearn.neural_network import MLPClassifier

    linear = configs.default()
    linear.data.name = dataset
    linear.model.name = "linear"
    linear.train.epochs = epochs
    linear.optim.schedule = "one_cycle"
    linear.optim.learning_rate = 0.002
    linear.sweep.update(folds=10, share_batches=True)
    mlp = linear.copy_and_resolve_references()
    mlp.model.update(study.MODELS["mlp_512_256"])
    # As in scikit-learn; so large a net gains nothing from shared batches.
    mlp.optim.schedule, mlp.optim.learning_rate = "constant", 0.001
    mlp.sweep.share_batches = False
    sgd = SGDClassifier(loss="log_loss", max_iter=epochs, tol=None, random_state=0)
    theirs = MLPClassifier(
        (512, 256), batch_size=BATCH_SIZE, max_iter=epochs, n_iter_no_change=epochs, random_state=0
    )
    found = splits.load(linear)
    x = found.train.images.reshape(len(found.train.labels), -1).astype(np.float32) / 255
    rows = []
    for name, config, classifier in (
        ("softmax regression", linear, sgd),
        ("mlp_512_256", mlp, theirs),
    ):
        ours_seconds, their_seconds, scores = [], [], np.zeros(0)
        accuracies: list[float] = []
        for _ in range(repeats):
            start = time.perf_counter()
            accuracies = _held_out_accuracies(config, found)
            ours_seconds.append(time.perf_counter() - start)
            start = time.perf_counter()
            with warnings.catch_warnings():  # few epochs are intended
                warnings.simplefilter("ignore", ConvergenceWarning)
                scores = cross_val_score(
                    classifier, x, found.train.labels, cv=10, n_jobs=os.cpu_count()
                )
            their_seconds.append(time.perf_counter() - start)
        rows.append(
            {
                "model": name,
                "epochs": config.train.epochs,
                "ours_seconds": statistics.median(ours_seconds),
                "scikit_learn": type(classifier).__name__,
                "scikit_learn_seconds": statistics.median(their_seconds),
                "pytorch_seconds": _runs_of_pytorch(config, len(x)),
                "ours_accuracies": accuracies,
                "scikit_learn_accuracies": scores.tolist(),
            }
        )
    return rows


def _held_out_accuracies(config: ConfigDict, examples: Splits) -> list[float]:
    """Return the accuracy of each fold, without training on all examples at the end."""
    with tempfile.TemporaryDirectory() as folder:
        all_trials = space.expand(config)
        group = groups.make(config, all_trials, examples)
        writer = Writer(Path(folder, "checkpoints"), lambda line: None)
        trained = loop.train_group(group, writer)
    return [row["val_accuracy"] for row in select.outcomes(trained)]


def _runs_of_pytorch(config: ConfigDict, num_examples: int) -> float | None:
    """Return the seconds of a PyTorch run for each fold; None if it is not installed."""
    folds, size = config.sweep.folds, config.train.batch_size
    num_train = num_examples - -(-num_examples // folds)
    net = {"name": config.model.name, **registry.fields(config.model)}
    job = worker.Job("pytorch", net, size, num_train // size * size)
    with tempfile.TemporaryDirectory() as cache, worker.spawn(job, Path(cache)) as process:
        try:
            epochs = range(folds * config.train.epochs)
            return sum(worker.ask(process, "train")["seconds"] for _ in epochs)
        except worker.Failed:
            return None


def main() -> None:
    """Measure and write the results."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    parser = tables.parser("members_speed", __doc__)
    parser.add_argument("--name", default=jax.default_backend(), help="of the results' files")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--members", nargs="+", type=int, default=COUNTS)
    parser.add_argument("--train-size", type=int, default=6144, help="examples of one timed turn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dataset", default="mnist", help="of the cross-validation")
    parser.add_argument("--epochs", type=int, default=20, help="of a fold's training")
    options = parser.parse_args()
    xla.enable_cache(xla.OFF)  # the results include compilation
    measured = [
        throughput(net, options.members, options.train_size, options.repeats)
        for net in tqdm(options.nets, unit="net")
    ]
    record = {
        **tables.origin("experiments.members_speed"),
        "repeats": options.repeats,
        "batch_size": BATCH_SIZE,
        "throughput": measured,
        "cross_validation": cross_validation(options.dataset, options.epochs, 1),
    }
    name = f"members_speed-{options.name}"
    tables.publish(name, record, report.TABLES)
    figures.save(report.figure(record), name)


if __name__ == "__main__":
    main()
