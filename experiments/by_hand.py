"""What does one hidden layer reach with back-propagation written out by hand?

    python -m experiments.by_hand [--quick]

The net: 784 pixels, 512 sigmoid units, softmax over 10 classes; trained by plain gradient descent,
each of the 140 iterations on all training examples at once. `gradients` is the chain rule on paper,
equation by equation, without automatic differentiation; `loss` and `gradients_by_jax` are the same
in three lines. The learning rate is chosen on validation data; each seed reads the test split once.

The derivation. n examples are the rows of X (n x 784), their classes, one-hot, the rows of Y
(n x 10). Forward, with the sigmoid s(z) = 1 / (1 + exp(-z)) element by element:

    (1)  Z1 = X W1 + b1                           inputs of the hidden units
    (2)  H  = s(Z1)                               and their outputs
    (3)  Z2 = H W2 + b2                           the logits
    (4)  P  = exp(Z2) / row sums of exp(Z2)       softmax: each row is a distribution over classes
    (5)  L  = -1/n  sum_ik Y_ik log P_ik          categorical cross-entropy, in nats

Backward, from the loss to the weights. Write dQ for the derivatives of L by the elements of Q; dQ
has Q's shape. Each line is the chain rule applied to one line above:

    (6)  dZ2 = (P - Y) / n        By (4), log P_ik = Z2_ik - log sum_j exp(Z2_ij), whose derivative
                                  by Z2_ij is [j = k] - P_ij. In (5) this gives
                                  -1/n sum_k Y_ik ([j = k] - P_ij) = (P_ij - Y_ij) / n, because
                                  a row of Y sums to 1.
    (7)  dW2 = H' dZ2             By (3), W2_jk meets the logit Z2_ik of every example i with the
                                  factor H_ij: dW2_jk = sum_i H_ij dZ2_ik. (H' is H transposed.)
    (8)  db2 = column sums of dZ2     The same, where the factor is 1.
    (9)  dH  = dZ2 W2'            By (3), H_ij meets every logit k with the factor W2_jk:
                                  dH_ij = sum_k dZ2_ik W2_jk.
    (10) dZ1 = dH * H * (1 - H)   By (2), element by element: the derivative of s is
                                  exp(-z) / (1 + exp(-z))^2 = s(z) (1 - s(z)).
    (11) dW1 = X' dZ1             As (7) and (8), one layer further down.
    (12) db1 = column sums of dZ1

Gradient descent then takes a step against each of them, r being the learning rate:

    (13) Q <- Q - r dQ            for Q = W1, b1, W2, b2
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int32, UInt8
from tqdm import tqdm

from experiments import tables
from mnist_jax import config as configs
from mnist_jax.analysis import metrics
from mnist_jax.data import splits
from mnist_jax.data.augment import normalize
from mnist_jax.data.splits import Splits
from mnist_jax.runtime import xla
from mnist_jax.runtime.prng import Key
from mnist_jax.types import UserError

HIDDEN = 512
ITERATIONS = 140
RATES = (0.5, 1.0, 1.5, 2.0)
SEEDS = 5
EVERY = 10  # iterations from one point of the curve to the next

# A published run in NumPy on Fashion-MNIST; its learning rate is not known.
REFERENCE = {
    # Every 10 iterations.
    "accuracy_percent": [
        *(15.1, 53.0, 58.1, 67.2, 69.6, 70.1, 74.3, 66.9),
        *(71.6, 74.5, 74.2, 73.1, 73.9, 74.5, 75.06),
    ],
    # Recall of each class on the test split, then accuracy.
    "test_percent": [88.0, 93.3, 46.9, 67.1, 92.5, 83.8, 12.7, 84.2, 88.6, 88.2, 74.53],
}


class Params(NamedTuple):
    """The parameters; also their gradients, which have the same shapes."""

    W1: Float32[Array, "pixels hidden"]
    b1: Float32[Array, " hidden"]
    W2: Float32[Array, "hidden classes"]
    b2: Float32[Array, " classes"]


class Examples(NamedTuple):
    """The examples of a split as matrices."""

    X: Float32[Array, "n pixels"]  # in [0, 1]
    Y: Float32[Array, "n classes"]  # one-hot


class Curve(NamedTuple):
    """Measured at regular iterations, from before the first to after the last."""

    loss: Float32[Array, " points"]  # on the training examples, in nats
    accuracy: Float32[Array, " points"]  # likewise
    val_accuracy: Float32[Array, " points"]


Gradients = Callable[[Params, Examples], Params]


def init(key: Key, pixels: int = 784, hidden: int = HIDDEN, classes: int = 10) -> Params:
    """Normal weights of variance 1 / inputs (LeCun et al. 1998), biases 0."""
    key1, key2 = jax.random.split(key)
    return Params(
        W1=jax.random.normal(key1, (pixels, hidden)) / pixels**0.5,
        b1=jnp.zeros(hidden),
        W2=jax.random.normal(key2, (hidden, classes)) / hidden**0.5,
        b2=jnp.zeros(classes),
    )


def forward(
    params: Params, X: Float32[Array, "n pixels"]
) -> tuple[Float32[Array, "n hidden"], Float32[Array, "n classes"]]:
    """H, and the logarithm of P: equations (1) to (4)."""
    Z1 = X @ params.W1 + params.b1[None]  # (1)
    H = jax.nn.sigmoid(Z1)  # (2)
    Z2 = H @ params.W2 + params.b2[None]  # (3)
    Z2 -= Z2.max(axis=1, keepdims=True)  # cancels in (4), and no exp overflows
    return H, Z2 - jnp.log(jnp.exp(Z2).sum(axis=1, keepdims=True))  # (4)


def gradients(params: Params, examples: Examples) -> Params:
    """Back-propagation by hand: equations (6) to (12)."""
    X, Y = examples
    H, log_P = forward(params, X)
    dZ2 = (jnp.exp(log_P) - Y) / len(X)  # (6)
    dW2 = H.T @ dZ2  # (7)
    db2 = dZ2.sum(axis=0)  # (8)
    dH = dZ2 @ params.W2.T  # (9)
    dZ1 = dH * H * (1 - H)  # (10)
    dW1 = X.T @ dZ1  # (11)
    db1 = dZ1.sum(axis=0)  # (12)
    return Params(dW1, db1, dW2, db2)


def loss(params: Params, examples: Examples) -> Float32[Array, ""]:
    """Equation (5)."""
    _, log_P = forward(params, examples.X)
    return -jnp.sum(examples.Y * log_P) / len(log_P)


gradients_by_jax: Gradients = jax.grad(loss)


@partial(jax.jit, static_argnames=("iterations", "every", "gradients"))
def train(
    params: Params,
    rate: float | Float32[Array, ""],
    fit: Examples,
    val: Examples,
    iterations: int = ITERATIONS,
    every: int = EVERY,
    gradients: Gradients = gradients,
) -> tuple[Params, Curve]:
    """Train by gradient descent on all of `fit` at once, equation (13), and measure on `val`.

    The curve has a point every `every` iterations.

    Raises:
      ValueError: the number of iterations is not a multiple of `every`.
    """
    if iterations % every:
        raise ValueError(f"{iterations} iterations are no multiple of {every}")

    def measure(params: Params) -> Curve:
        return Curve(loss(params, fit), accuracy(params, fit), accuracy(params, val))

    def iterate(params: Params, _: None) -> tuple[Params, None]:
        return jax.tree.map(lambda Q, dQ: Q - rate * dQ, params, gradients(params, fit)), None

    def stretch(params: Params, _: None) -> tuple[Params, Curve]:
        return lax.scan(iterate, params, length=every)[0], measure(params)

    params, before = lax.scan(stretch, params, length=iterations // every)
    return params, jax.tree.map(lambda x, end: jnp.append(x, end), before, measure(params))


def accuracy(params: Params, examples: Examples) -> Float32[Array, ""]:
    """Return the share of examples whose class is the most probable one."""
    _, log_P = forward(params, examples.X)
    return jnp.mean(log_P.argmax(axis=1) == examples.Y.argmax(axis=1))


def as_matrices(
    images: UInt8[np.ndarray, "n 28 28 1"], labels: Int32[np.ndarray, " n"], classes: int
) -> Examples:
    """Return a row of pixels and a one-hot row of each example."""
    X = normalize(jnp.asarray(images)).reshape(len(images), -1)
    return Examples(X, jax.nn.one_hot(labels, classes))


def study(examples: Splits, seeds: int = SEEDS, iterations: int = ITERATIONS) -> dict[str, Any]:
    """Choose the learning rate on validation with seed 0, then train all seeds with it.

    Returns:
      The results, ready for JSON: lists over seeds, each over points or classes; in percent.
    """
    classes = len(examples.class_names)
    fit, val, test = (
        as_matrices(*split, classes) for split in (examples.train, examples.val, examples.test)
    )
    labels = jnp.asarray(examples.test.labels)

    seconds: list[float] = []

    def run(seed: int, rate: float) -> tuple[Params, Curve]:
        params = jax.block_until_ready(init(jax.random.key(seed), classes=classes))
        start = time.perf_counter()
        found = jax.block_until_ready(train(params, rate, fit, val, iterations))
        seconds.append(time.perf_counter() - start)
        return found

    tried = {rate: run(0, rate) for rate in tqdm(RATES, unit="rate")}
    reached = {rate: 100 * float(curve.val_accuracy[-1]) for rate, (_, curve) in tried.items()}
    best = max(reached, key=lambda rate: reached[rate])
    runs = [tried[best], *(run(seed, best) for seed in tqdm(range(1, seeds), unit="seed"))]
    evaluate = jax.jit(lambda params: metrics.classification(forward(params, test.X)[1], labels))
    reports = [evaluate(params) for params, _ in runs]
    curves = [curve for _, curve in runs]
    by_hand, by_jax = (jax.jit(of)(runs[0][0], fit) for of in (gradients, gradients_by_jax))
    apart = [
        float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(by_hand, by_jax, strict=True)
    ]
    return {
        "dataset": examples.name,
        "class_names": list(examples.class_names),
        "examples": [len(fit.X), len(val.X), len(test.X)],
        "learning_rate": best,
        "val_accuracy_percent_of_rates": {f"{rate:g}": reached[rate] for rate in RATES},
        "iteration": list(range(0, iterations + 1, EVERY)),
        "loss": [curve.loss.tolist() for curve in curves],
        "accuracy_percent": [(100 * curve.accuracy).tolist() for curve in curves],
        "val_accuracy_percent": [(100 * curve.val_accuracy).tolist() for curve in curves],
        "test_accuracy_percent": [100 * float(report.accuracy) for report in reports],
        "confusion_matrix": reports[0].confusion.tolist(),  # of seed 0
        "recall_percent": [(100 * report.per_class.recall).tolist() for report in reports],
        "relative_difference_from_jax": max(apart),
        # Of one training, with its curve; the first compiles too.
        "seconds": statistics.median(seconds[1:]),
        "reference": REFERENCE if examples.name == "fashion_mnist" else None,
    }


def to_markdown(record: Mapping[str, Any]) -> str:
    """The learning curve: a row every 10 iterations."""
    keys = ("loss", "accuracy_percent", "val_accuracy_percent")
    header = ["iteration", "loss", "training accuracy, %", "validation accuracy, %"]
    rows = [
        [f"{iteration}", *(tables.spread([seed[i] for seed in record[key]]) for key in keys)]
        for i, iteration in enumerate(record["iteration"])
    ]
    _beside(record, header, rows, "accuracy_percent")
    train, val, _ = record["examples"]
    rates = ", ".join(record["val_accuracy_percent_of_rates"])
    note = (
        f"Mean ± standard deviation over {len(record['loss'])} seeds on {record['dataset']}: "
        f"{train:,} training and {val:,} validation examples; learning rate "
        f"{record['learning_rate']:g}, the best of {rates} on validation; gradients equal "
        f"`jax.grad` to {record['relative_difference_from_jax']:.0e} of the largest; "
        f"{tables.source(record)}"
    )
    return tables.markdown(header, rows, note)


def recalls_to_markdown(record: Mapping[str, Any]) -> str:
    """Test recall of every class, and test accuracy."""
    header = ["class", "test recall, %"]
    rows = [
        [name, tables.spread([seed[i] for seed in record["recall_percent"]])]
        for i, name in enumerate(record["class_names"])
    ]
    rows.append(["all: accuracy", tables.spread(record["test_accuracy_percent"])])
    _beside(record, header, rows, "test_percent")
    note = f"The same seeds, each evaluated once on all {record['examples'][2]:,} test images."
    return tables.markdown(header, rows, note)


TABLES = (to_markdown, recalls_to_markdown)


def _beside(record: Mapping[str, Any], header: list[str], rows: list[list[str]], key: str) -> None:
    """Add the column of the reference run, if there is one."""
    if record["reference"]:
        header.append("reference run, %")
        for row, theirs in zip(rows, record["reference"][key], strict=True):
            row.append(f"{theirs:.2f}")


def main() -> int:
    """Train and write the results; return the exit code."""
    parser = tables.parser("by_hand", __doc__)
    parser.add_argument(
        "--quick", action="store_true", help="two seeds on the small digits; nothing is written"
    )
    options = parser.parse_args()
    xla.enable_cache(None)
    config = configs.default()
    config.data.name = "digits" if options.quick else "fashion_mnist"
    try:
        examples = splits.load(config)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    origin = tables.origin("experiments.by_hand")  # now: the code may change while this runs
    record = {**origin, **study(examples, seeds=2 if options.quick else SEEDS)}
    tables.publish("by_hand", record, TABLES, quick=options.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
