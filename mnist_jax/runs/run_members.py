"""The host side of many members: choose by validation, judge, save.

What is chosen among, and how, is `choice`'s; that setting's members are judged on the test split,
once.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float32
from ml_collections import ConfigDict

from mnist_jax.data import datasets
from mnist_jax.data import splits as data_splits
from mnist_jax.data.splits import Splits
from mnist_jax.runs import (
    choice,
    groups,
    loop,
    members_results,
    nested,
    out_of_fold,
    results,
    space,
)
from mnist_jax.runs.choice import Choice
from mnist_jax.runs.run_group import Finished
from mnist_jax.runs.space import Member
from mnist_jax.runtime import multihost, progress
from mnist_jax.types import UserError
from mnist_jax.workdir import files


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
    everyone = space.expand(config)
    _check(config, splits, everyone)
    with ExitStack() as held:
        finished = multihost.on_first_process(
            lambda: loop.prepare(config, splits, workdir, overwrite, held)
        )
        if finished:
            echo(f"{workdir}: is finished; --overwrite starts it anew")
            return finished
        echo(_introduction(config, splits, everyone))
        checkpoints = workdir / files.CHECKPOINTS
        outer = (
            nested.judge(config, splits, checkpoints, echo) if config.members.outer_folds else []
        )
        if outer:
            echo("on all training examples:")
        found = choice.choose(config, splits, checkpoints, echo)
        logits, judged = choice.judge(found, splits.test)
        for member, report in zip(found.judged, judged, strict=False):  # with folds there are none
            found.rows[member] |= {
                "test_accuracy": report["accuracy"],
                "test_errors": report["errors"],
            }

        held_out = _out_of_fold(found, config.members.folds)
        if config.members.folds and held_out is None:
            echo(f"{files.OUT_OF_FOLD}: left out, for the best setting diverged in a fold")

        def publish() -> dict[str, Any]:
            if held_out is not None:
                results.write_predictions(
                    workdir / files.OUT_OF_FOLD, held_out, splits.train.labels
                )
            summary = members_results.summarize(
                config,
                splits,
                requested_dataset=requested_dataset or splits.name,
                num_params=_num_params(found.finalists),
                rows=found.rows,
                settings=found.settings,
                chosen=found.setting,
                outer=outer,
                tested=judged,
                logits=logits,
                train_seconds=sum(row["train_seconds"] for row in outer) + found.train_seconds,
                compile_seconds=sum(row["compile_seconds"] for row in outer)
                + found.compile_seconds,
            )
            members_results.publish(
                workdir,
                summary,
                found.rows,
                found.history,
                config,
                splits.test,
                logits,
                command,
                None if held_out is None else (held_out, splits.train.labels),
            )
            return summary

        return multihost.on_first_process(publish)


def _out_of_fold(found: Choice, folds: int) -> Float32[np.ndarray, "seeds train scores"] | None:
    """The scores out of fold of the best setting, for each seed; None where there are not all."""
    if found.folds is None:
        return None
    group, places = found.folds
    if np.asarray(group.course.diverged)[places].any():
        return None
    by_seed = [places[i : i + folds] for i in range(0, len(places), folds)]
    return np.stack([out_of_fold.scores(group, own) for own in by_seed])


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
    for key, does in (("halving", "drops settings"), ("outer_folds", "judges how one is chosen")):
        if config.members[key] and not several:
            raise UserError(f"config.members.{key}: {does}, and there is only one")
    count = config.members.outer_folds
    outer = data_splits.outer_folds(splits, count, config.seed) if count else ()
    for part in chain([splits], outer):  # one at a time, for each has its images; they say why not
        if config.members.folds:
            datasets.folds(part.train.labels, config.members.folds, config.seed)
        for indices in space.groups(config, everyone):
            groups.plan(config, [everyone[i] for i in indices], part)
            if config.members.folds:  # and the training that follows
                setting = everyone[indices[0]].setting
                groups.plan(*space.refit(config, everyone, setting), part)


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
    if config.members.outer_folds:
        many += f", in each of {config.members.outer_folds} outer folds and on all examples"
    return f"{config.model.name} on {splits.name}: {counts}; {many}"


def _num_params(finished: Finished) -> int:
    leaves: list[Array] = jax.tree.leaves(finished.course.state.params)
    return sum(x.size for x in leaves) // len(finished.group.settings)
