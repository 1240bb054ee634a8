"""The modes of the command line: train, evaluate, and summarize a model."""

import re
import shlex
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mnist_jax import tasks
from mnist_jax.cli import flags
from mnist_jax.config import flatten
from mnist_jax.data import datasets, splits
from mnist_jax.models import networks
from mnist_jax.runs import evaluation, select, space, training
from mnist_jax.runtime import multihost, output, progress
from mnist_jax.runtime.progress import Log
from mnist_jax.workdir import files


def train(options: flags.Options) -> int:
    """Trains, or goes on; where the data cannot be had, on digits if the config says so.

    Returns:
      The exit code: 0, or 128 + the signal that stopped it.
    """
    with output.without_reader() as log:
        return _train(options, log if multihost.is_first() else lambda line: None)


def _train(options: flags.Options, log: Log) -> int:
    config = options.config
    requested = config.data.name
    try:
        examples = multihost.on_first_process(lambda: splits.load(config, log))
        dataset = examples.name
    except datasets.DataNotFound as error:
        if not config.data.offline_fallback:
            raise
        _warn(f"{error}")
        _warn(f"*** NOT {requested}: training on scikit-learn's small 'digits' instead ***")
        config = flags.parse(options.argv, dataset="digits").config
        examples = multihost.on_first_process(lambda: splits.load(config))
        dataset = f"{examples.name}-not-{datasets.file_name(requested)}"
    workdir = options.workdir or Path("runs", run_name(options, dataset))
    words = ["python", "-m", "mnist_jax.main", *options.argv]
    try:
        summary = training.train_run(
            config,
            examples._replace(requested=requested),
            workdir,
            command=shlex.join(words),
            overwrite=options.overwrite,
            log=log,
        )
    except progress.Stopped as stopped:
        again = shlex.join(word for word in words if not re.match("--?overwrite", word))
        log(f"{stopped}; to resume:\n  {again}")
        return 128 + stopped.signum
    log(headline(summary, workdir))
    return 0


def run_name(options: flags.Options, dataset: str) -> str:
    """A directory's name that tells what is trained: another command has another.

    The config, the data set, the seed, what is overridden (`epochs-5`, `task-binary`; cut short
    where that is long) and how many trials there are.
    """
    config = options.config
    parts = []
    for key in options.overridden:
        if key not in _NAMED_ANYWAY:
            group, _, last = key.rpartition(".")
            value = dict(flatten(config.to_dict()))[key]
            parts.append(f"-{group if last == 'name' else last}-{_as_name(value)}".rstrip("-"))
    overrides = "".join(parts)
    if len(overrides) > _LONG:
        overrides = f"{overrides[:_LONG].rstrip('-')}-{zlib.crc32(overrides.encode()):08x}"
    many = f"-{len(space.expand(config))}-trials" if space.is_sweep(config) else ""
    name = f"{options.config_name}-{datasets.file_name(dataset)}-s{config.seed}"
    return name + overrides + many


_LONG = 60  # letters of overrides in a name
_NAMED_ANYWAY = {
    *("seed", "sweep.seeds"),
    *("data.archives", "data.data_dir", "data.offline_fallback"),
}


def _as_name(value: Any) -> str:
    """A value in letters that file names may have."""
    return re.sub(r"[^\w.+-]+", "-", str(value)).strip("-")


def evaluate(options: flags.Options) -> int:
    """Judges a run's best checkpoint on a split and prints what it is worth."""
    workdir, split = options.workdir or Path(), options.split
    epochs, report = evaluation.evaluate_run(workdir, split, _warn)
    what = f"epoch {epochs[0]}" if len(epochs) == 1 else f"mean of {len(epochs)} trials"
    _say(f"{workdir}: {what} on {split}: {'  '.join(_facts(report))}")
    if "per_class" not in report:
        return 0
    rows = [*report["per_class"]]
    total = report["examples"]
    rows += [
        {"name": f"{key} average", "support": total, **report[key]} for key in ("macro", "weighted")
    ]
    header = ("class", "precision", "recall", "f1", "support")
    cells = [
        [row["name"], *(f"{row[k]:.4f}" for k in header[1:4]), f"{row['support']:,}"]
        for row in rows
    ]
    _say(f"\n{table(header, cells)}")
    return 0


def _facts(report: Mapping[str, Any]) -> list[str]:
    """A report's numbers, those that it has."""
    forms = {
        "accuracy": ("accuracy", "{:.2%}"),
        "errors": ("errors", "{:,.5g} of {:,}"),
        "loss": ("loss", "{:.4f}"),
        "top2_accuracy": ("top-2", "{:.2%}"),
        "ece": ("calibration error", "{:.4f}"),
        "psnr": ("PSNR", "{:.2f} dB"),
        "ssim": ("SSIM", "{:.4f}"),
        "pixel_error": ("pixel error", "{:.2f} of 255"),
    }
    shown = {key: report.get(key) for key in forms}
    if shown["accuracy"] is None:  # then nothing is an error
        del shown["errors"]
    return [
        f"{forms[key][0]} {forms[key][1].format(value, report['examples'])}"
        for key, value in shown.items()
        if value is not None
    ]


def summarize(options: flags.Options) -> int:
    """Prints a config's model layer by layer."""
    config = options.config
    name = config.data.name
    familiar = name in datasets.KNOWN or name.startswith("csv:")
    names = datasets.DIGITS if familiar else splits.load(config).class_names
    if familiar:
        _, names = tasks.relabel(config.task, np.zeros(0, np.int32), names)
    task = tasks.build(config.task, len(names))
    layers = networks.build(config.model, task.num_outputs).layers()
    cells = [
        [
            row.path,
            row.kind,
            "x".join(map(str, row.output_shape)),
            f"{row.num_params:,}",
            f"{row.flops:,}",
        ]
        for row in layers
    ]
    params, flops = (sum(getattr(row, k) for row in layers) for k in ("num_params", "flops"))
    cells.append(["total", "", "", f"{params:,}", f"{flops:,}"])
    _say(f"{config.model.name} on 28x28x1, one image forward:\n")
    _say(table(("layer", "kind", "output", "parameters", "FLOPs"), cells))
    return 0


def headline(summary: Mapping[str, Any], workdir: Path) -> str:
    """The last line of a run; the result of a cross-validation comes before that of the refit."""
    data_name, accuracy = summary["dataset"], summary["test_accuracy"]
    if summary["requested_dataset"] != data_name:
        data_name += f" (NOT {summary['requested_dataset']})"
    if summary.get("folds"):
        data_name += f": {_cross_validated(summary)}  refit"
    if accuracy is None:
        result = f"PSNR {summary['test_psnr']:.2f} dB  SSIM {summary['test_ssim']:.4f}"
        return f"{data_name}: test {result}  {_end(summary, workdir)}"
    result = f"{100 * accuracy:.2f}%"
    if "trials" not in summary:
        result += f"  ({summary['test_errors']} errors of {summary['num_test']:,})"
    elif summary["test"]["accuracy"]["sd"] is not None:
        spread = summary["test"]["accuracy"]
        result += f" ± {100 * spread['sd']:.2f}  (mean ± sd of {spread['n']} trials)"
    return f"{data_name}: test accuracy {result}  {_end(summary, workdir)}"


def _cross_validated(summary: Mapping[str, Any]) -> str:
    """The mean and standard deviation over held-out folds: the outer ones, if there are any."""
    found = summary["settings"][summary["chosen"]]["val_score"]
    folds = f"{summary['folds']} held-out folds"
    if nested := summary["nested"]:
        found, folds = nested["score"], f"{len(nested['folds'])} outer folds, nested"
    score = select.format_score(summary["score"], found["mean"], found["sd"])
    return f"{score}  (mean ± sd of {folds})"


def _end(summary: Mapping[str, Any], workdir: Path) -> str:
    return f"trained in {summary['train_seconds']:.1f} s  report: {workdir / files.REPORT}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text: words to the left, numbers and their headings to the right."""
    columns = []
    for heading, *cells in zip(header, *rows, strict=True):
        numbers = all(cell[:1].isdigit() for cell in cells if cell)
        width = max(map(len, (heading, *cells)))
        columns.append(
            [cell.rjust(width) if numbers else cell.ljust(width) for cell in (heading, *cells)]
        )
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def _say(line: str) -> None:
    if multihost.is_first():
        output.say(line)


def _warn(line: str) -> None:
    if multihost.is_first():
        output.warn(line)
