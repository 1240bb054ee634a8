"""The modes of the command line: train, evaluate, and summarize a model."""

import os
import re
import shlex
import shutil
import string
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mnist_jax import tasks
from mnist_jax.cli import flags
from mnist_jax.cli.text import table
from mnist_jax.config import flatten
from mnist_jax.data import datasets, splits
from mnist_jax.models import networks
from mnist_jax.runs import evaluation, select, space, training
from mnist_jax.runtime import multihost, output, progress
from mnist_jax.runtime.progress import Log
from mnist_jax.types import printable
from mnist_jax.workdir import files


def train(options: flags.Options) -> int:
    """Train or resume a run; without its data, train on digits if the config allows it.

    Returns:
      The exit code: 0, or 128 + the signal that stopped it.
    """
    with output.without_reader() as log:
        first = multihost.is_first()
        return _train(options, lambda text: log(_printable(text)) if first else None)


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
    words = [*program(), *options.argv]
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


def program() -> list[str]:
    """Return the words with which a shell starts this command again."""
    started = Path(sys.argv[0])
    if started.name == "mnist-jax":
        return [_typed(started), "train"]
    return [_typed(Path(sys.executable)), "-m", "mnist_jax.main"]


def _typed(program: Path) -> str:
    """Return a program's name if the shell finds it by that, else its path."""
    found = shutil.which(program.name)
    if found and Path(found).absolute() == program.absolute():
        return program.name
    path, here = program.absolute(), Path.cwd()
    return f"./{path.relative_to(here)}" if path.is_relative_to(here) else str(path)


def run_name(options: flags.Options, dataset: str) -> str:
    """Name a run's directory after what its command trains: another command has another name.

    The config, the data set, the seed, what is overridden, and the number of trials of a sweep.
    Overrides are words (`epochs-5`, `task-binary`) or, if these are long, a hash of four letters.
    """
    config = options.config
    values = {**options.overridden, **dict(flatten(config.to_dict()))}
    words = []
    for key in options.overridden:
        if key not in _NAMED_ANYWAY:
            section, _, leaf = key.rpartition(".")
            value = datasets.file_name(values[key]) if key == "data.name" else values[key]
            value = "x".join(map(str, value)) if isinstance(value, list) else value
            words.append(f"-{section if leaf == 'name' else leaf}-{value}")
    overrides = "".join(words)
    if len(overrides) > _LONG or not re.fullmatch(r"[\w.+-]*", overrides, re.ASCII):
        overrides = f"-{_hash(overrides)}"
    many = f"-{len(space.expand(config))}-trials" if space.is_sweep(config) else ""
    return f"{options.config_name}-{_as_name(dataset)}-s{config.seed}{overrides}{many}"


_LONG = 24  # letters of overrides in a name
_NAMED_ANYWAY = {
    *("seed", "sweep.seeds"),
    *("data.archives", "data.data_dir", "data.offline_fallback"),
}


def _as_name(dataset: str) -> str:
    """Return a data set's name in letters that are easy to type."""
    return re.sub(r"[^\w.+-]+", "-", datasets.file_name(dataset), flags=re.ASCII).strip("-")


def _hash(text: str) -> str:
    """Four letters that stand for a text."""
    number = zlib.crc32(os.fsencode(text))
    return "".join(string.ascii_lowercase[number // 26**place % 26] for place in range(4))


def evaluate(options: flags.Options) -> int:
    """Evaluate a run's best checkpoint on a split and print the figures.

    Evaluate the data of --config, or the run's data with the overrides of the command.
    """
    workdir = options.workdir or Path()
    keys = flatten(options.config.to_dict().get("data", {}), "data.")
    data = {
        key.removeprefix("data."): value
        for key, value in keys
        if key not in flags.OF_TRAINING and (options.config_name or key in options.overridden)
    }
    epochs, report = evaluation.evaluate_run(workdir, options.split, _warn, data)
    what = f"epoch {epochs[0]}" if len(epochs) == 1 else f"mean of {len(epochs)} trials"
    place = f"on the {report['split']} split of {report['dataset']}"
    _say(f"{workdir}: {what} {place}: {'  '.join(_facts(report))}")
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
    """Return the numbers that a report has."""
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
    """Print a config's model layer by layer."""
    config = options.config
    name = config.data.name
    if name in datasets.KNOWN and not datasets.is_file(name):  # without reading it
        names = config.data.class_names or datasets.DIGITS
        _, names = tasks.relabel(config.task, np.zeros(0, np.int32), names)
    else:
        names = splits.load(config).class_names
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
    """Return the last line of a run; a cross-validation shows its own result, then the refit's."""
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
    """Return the mean and standard deviation over held-out folds: the outer ones, if any."""
    found = summary["settings"][summary["chosen"]]["val_score"]
    folds = f"{summary['folds']} held-out folds"
    if nested := summary["nested"]:
        found, folds = nested["score"], f"{len(nested['folds'])} outer folds, nested"
    score = select.format_score(summary["score"], found["mean"], found["sd"])
    return f"{score}  (mean ± sd of {folds})"


def _end(summary: Mapping[str, Any], workdir: Path) -> str:
    return f"trained in {summary['train_seconds']:.1f} s  report: {workdir / files.REPORT}"


def _say(text: str) -> None:
    if multihost.is_first():
        output.say(_printable(text))


def _warn(line: str) -> None:
    if multihost.is_first():
        output.warn(_printable(line))


def _printable(lines: str) -> str:
    return "\n".join(map(printable, lines.split("\n")))
