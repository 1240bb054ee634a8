"""The host loop of many members: train, choose by validation, judge, save.

Members that one program can train make a group, and groups are trained one after the other.
Settings are compared by the mean validation accuracy of their members; those of the best one are
judged on the test split, once. In cross-validation that setting is first trained anew, on all
training examples.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float32
from ml_collections import ConfigDict

from mnist_jax import (
    compilation,
    data,
    groups,
    members,
    members_results,
    metrics,
    parallel,
    processes,
    progress,
    run,
    run_group,
    sweep,
)
from mnist_jax import workdir as files
from mnist_jax.results import Row
from mnist_jax.run_group import Finished
from mnist_jax.splits import Split, Splits
from mnist_jax.sweep import Member
from mnist_jax.types import UserError


def run_members(
    config: ConfigDict,
    splits: Splits,
    workdir: Path,
    *,
    command: str = "",
    requested_dataset: str | None = None,
    overwrite: bool = False,
    echo: progress.Echo = print,
) -> dict[str, Any]:
    """Trains all members of a config, going on from whatever is in the workdir, and reports.

    Args, Returns and Raises are those of `run.run`. With folds, `splits` has no validation
    examples: config.data.val_size is 0.
    """
    everyone = sweep.expand(config)
    _check(config, splits, everyone)
    finished = processes.from_first(lambda: run.prepare(config, splits, workdir, overwrite))
    if finished:
        echo(f"{workdir}: is finished; --overwrite starts it anew")
        return finished
    echo(_introduction(config, splits, everyone))
    found: dict[int, Row] = {}
    history: list[Row] = []
    done: list[Finished] = []
    parts = sweep.groups(config, everyone)
    for number, indices in enumerate(parts):
        there = [everyone[i] for i in indices]
        directory = workdir / files.CHECKPOINTS / str(number)
        done.append(run_group.run_group(config, there, splits, directory, echo))
        history += [{**row, "member": indices[row["member"]]} for row in done[-1].rows]
        found |= dict(zip(indices, run_group.outcomes(done[-1]), strict=True))
    rows = [{"member": i, **member._asdict(), **found[i]} for i, member in enumerate(everyone)]
    settings = members_results.describe_settings(rows)
    chosen = max(range(len(settings)), key=lambda i: members_results.rank(settings[i]))
    if why := members_results.choice(settings, chosen, config.members.folds):
        echo(why)
    if config.members.folds:
        alone = [m._replace(fold=None) for m in everyone if m.setting == chosen and not m.fold]
        whole = config.copy_and_resolve_references()
        whole.members.folds = 0
        echo("trained once more, on all training examples:")
        directory = workdir / files.CHECKPOINTS / "refit"
        finalists = run_group.run_group(whole, alone, splits, directory, echo)
        done.append(finalists)
        places = list(range(len(alone)))
    else:
        number = next(n for n, group in enumerate(done) if chosen in group.group.settings)
        finalists = done[number]
        places = [i for i, s in enumerate(finalists.group.settings) if s == chosen]
    places = [i for i in places if not finalists.course.diverged[i]]
    if not places:
        raise UserError(
            "all members diverged; try a lower config.optim.learning_rate, or config.optim.clip=1"
        )
    logits, judged = _judge(finalists, places, splits.test)
    for place, report in zip(places, judged, strict=True):
        row = {"test_accuracy": report["accuracy"], "test_errors": report["errors"]}
        if not config.members.folds:
            rows[parts[number][place]] |= row

    def publish() -> dict[str, Any]:
        summary = members_results.summarize(
            config,
            splits,
            requested_dataset=requested_dataset or splits.name,
            num_params=_num_params(finalists),
            rows=rows,
            settings=settings,
            chosen=chosen,
            tested=judged,
            logits=logits,
            train_seconds=sum(_seconds(group.rows) for group in done),
            compile_seconds=sum(group.compile_seconds for group in done),
        )
        members_results.publish(
            workdir, summary, rows, history, config, splits.test, logits, command
        )
        return summary

    return processes.from_first(publish)


def _check(config: ConfigDict, splits: Splits, everyone: Sequence[Member]) -> None:
    """Raises UserError, before anything is written, if the members cannot be trained or chosen."""
    if config.task.name in ("multilabel", "denoise"):
        raise UserError(
            f"config.members: compares accuracies, which '{config.task.name}' does not have; train "
            "one seed after the other"
        )
    several = everyone[-1].setting > 0
    if config.members.folds and len(splits.val.labels):
        raise ValueError("with folds, all training examples are needed: data.val_size=0")
    if several and not config.members.folds and not len(splits.val.labels):
        raise UserError(
            "config.members: settings are chosen by validation; give config.data.val_size or "
            "config.members.folds"
        )
    if config.members.folds:
        data.folds(splits.train.labels, config.members.folds, config.seed)  # or says why not
    for indices in sweep.groups(config, everyone):
        groups.plan(config, [everyone[i] for i in indices], splits)  # or says why not
    if config.members.halving and not several:
        raise UserError("config.members.halving: drops settings, and there is only one")


def _introduction(config: ConfigDict, splits: Splits, everyone: Sequence[Member]) -> str:
    parts = {name: len(getattr(splits, name).labels) for name in ("train", "val", "test")}
    counts = ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)
    numbers = {
        "settings": 1 + everyone[-1].setting,
        "seeds": config.members.seeds,
        "folds": config.members.folds,
    }
    product = " x ".join(f"{count} {name}" for name, count in numbers.items() if count > 1)
    many = f"{len(everyone)} members: {product}" if product else "1 member"
    return f"{config.model.name} on {splits.name}: {counts}; {many}"


def _judge(
    finished: Finished, places: Sequence[int], split: Split
) -> tuple[Float32[np.ndarray, "members n classes"], list[dict[str, Any]]]:
    """Logits and reports of some members' best epochs on a split."""
    group, variables = finished.group, finished.course.best
    examples = parallel.put(group.plan.mesh, split)
    index = np.zeros(group.plan.width, np.int32)
    lowered = members.judge.lower(group.plan, variables, index, *examples)
    judge = compilation.compile_lowered(lowered)
    logits, reports = [], []
    for chunk in run_group.chunks(places, group.plan.width):
        out, judged = jax.device_get(judge(variables, run_group.filled(chunk, group), *examples))
        logits += list(out[: len(chunk)])
        for i in range(len(chunk)):
            one = jax.tree.map(lambda x, i=i: x[i], judged)
            names = [str(label) for label in range(out.shape[-1])]
            reports.append(metrics.to_python(one, names))
    return np.stack(logits), reports


def _num_params(finished: Finished) -> int:
    leaves: list[Array] = jax.tree.leaves(finished.course.state.params)
    return sum(x.size for x in leaves) // len(finished.group.settings)


def _seconds(rows: Sequence[Row]) -> float:
    return sum(row["seconds"] for row in rows)
