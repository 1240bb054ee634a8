"""What validation chooses: all members of a config trained, and those of the best setting judged.

Members that one program can train make a group, and groups are trained one after the other.
Settings are compared by the mean validation accuracy of their members. In cross-validation the best
one is then trained anew, on all training examples.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float32
from ml_collections import ConfigDict

from mnist_jax.analysis import metrics
from mnist_jax.data.splits import Split, Splits
from mnist_jax.runs import halving, members_results, run_group, space
from mnist_jax.runs.run_group import Finished
from mnist_jax.runs.space import Member
from mnist_jax.runtime import progress, sharding, xla
from mnist_jax.train import trials
from mnist_jax.types import Row, UserError
from mnist_jax.workdir import files

_HINT = "try a lower config.optim.learning_rate, or config.optim.clip=1"


class Choice(NamedTuple):
    """All members of a config, trained; which of them are to be judged."""

    rows: list[Row]  # of the members, as in members.jsonl
    history: list[Row]  # of their epochs, as in metrics.jsonl
    settings: list[dict[str, Any]]  # from `members_results.describe_settings`
    setting: int  # the best one
    finalists: Finished  # the group with its members
    places: list[int]  # theirs in it; those that diverged are left out
    judged: list[int]  # their rows; none where they were trained anew
    folds: tuple[Finished, list[int]] | None  # the cross-validated group, its members of the best
    train_seconds: float  # of all members together
    compile_seconds: float


def choose(config: ConfigDict, splits: Splits, directory: Path, echo: progress.Echo) -> Choice:
    """Trains all members of a config and chooses the best setting by validation.

    Args:
      config: of the run.
      splits: the test split is not looked at. With folds there are no validation examples.
      directory: of the checkpoints, from where they go on.
      echo: told lines for a person.

    Raises:
      UserError: all members diverged, or the training on all folds together.
      progress.Stopped: a signal asked to stop; everything so far is saved.
    """
    everyone = space.expand(config)
    parts = space.groups(config, everyone)
    done, compile_seconds = _train(config, splits, everyone, parts, directory, echo)
    rows: list[Row] = [{"member": i, **member._asdict()} for i, member in enumerate(everyone)]
    for part, finished in zip(parts, done, strict=True):
        for i, outcome in zip(part, run_group.outcomes(finished), strict=True):
            rows[i] |= outcome
    settings = members_results.describe_settings(rows)
    chosen = max(range(len(settings)), key=lambda i: members_results.rank(settings[i]))
    if settings[chosen]["diverged"] == settings[chosen]["members"]:  # and so those of all others
        raise UserError(f"all members diverged; {_HINT}")
    if why := members_results.choice(settings, chosen, config.members.folds):
        echo(why)
    number = next(n for n, group in enumerate(done) if chosen in group.group.settings)
    folds = None
    if config.members.folds:
        settings_there = done[number].group.settings
        folds = done[number], [i for i, s in enumerate(settings_there) if s == chosen]
        whole, alone = space.refit(config, everyone, chosen)
        echo("trained once more, on all folds together:")
        finalists = run_group.run_group(whole, alone, splits, directory / files.REFIT, echo)
        compile_seconds += finalists.compile_seconds
        part, more = [], finalists.rows
    else:
        finalists, part, more = done[number], parts[number], []
    own = [i for i, setting in enumerate(finalists.group.settings) if setting == chosen]
    places = [i for i in own if not finalists.course.diverged[i]]
    if not places:  # without folds there are some
        raise UserError(f"the training on all folds together diverged; {_HINT}")
    history = _history(parts, done)
    return Choice(
        rows=rows,
        history=history,
        settings=settings,
        setting=chosen,
        finalists=finalists,
        places=places,
        judged=[part[i] for i in places] if part else [],
        folds=folds,
        train_seconds=sum(row["seconds"] for row in [*history, *more]),
        compile_seconds=compile_seconds,
    )


def _train(
    config: ConfigDict,
    splits: Splits,
    everyone: Sequence[Member],
    parts: Sequence[Sequence[int]],
    directory: Path,
    echo: progress.Echo,
) -> tuple[list[Finished], float]:
    """All groups at their ends, and the seconds of compiling.

    Where settings are halved all groups pause, so that settings of all shapes are compared. Which
    ones are dropped follows from the rows of the epochs, in a run that goes on too.
    """
    done: list[Finished] = []
    dropped: set[int] = set()
    compile_seconds = 0.0
    for until in (*sorted(config.members.halving), None):
        done = [
            run_group.run_group(
                config,
                [everyone[i] for i in part],
                splits,
                directory / str(number),
                echo,
                until,
                dropped,
            )
            for number, part in enumerate(parts)
        ]
        compile_seconds += sum(finished.compile_seconds for finished in done)
        if until is not None:
            worse = halving.worse_half(_history(parts, done), [m.setting for m in everyone], until)
            echo(f"halving after epoch {until}: {len(worse)} dropped")
            dropped |= worse
    return done, compile_seconds


def _history(parts: Sequence[Sequence[int]], done: Sequence[Finished]) -> list[Row]:
    """The rows of all groups' epochs, each with its member's place among all."""
    return [
        {**row, "member": part[row["member"]]}
        for part, finished in zip(parts, done, strict=True)
        for row in finished.rows
    ]


def judge(
    choice: Choice, split: Split
) -> tuple[Float32[np.ndarray, "members n classes"], list[dict[str, Any]]]:
    """Logits and reports of the chosen members' best epochs on a split."""
    group, variables = choice.finalists.group, choice.finalists.course.best
    examples = sharding.put_replicated(group.plan.mesh, split)
    index = np.zeros(group.plan.width, np.int32)
    lowered = trials.judge.lower(group.plan, variables, index, *examples)
    compiled = xla.compile_lowered(lowered, predicts=True)
    logits, reports = [], []
    for chunk in run_group.chunks(choice.places, group.plan.width):
        there = run_group.filled(chunk, group)
        out, judged = jax.device_get(compiled(variables, there, *examples))
        logits += list(out[: len(chunk)])
        for i in range(len(chunk)):
            one = jax.tree.map(lambda x, i=i: x[i], judged)
            names = [str(label) for label in range(out.shape[-1])]
            reports.append(metrics.to_python(one, names))
    return np.stack(logits), reports
