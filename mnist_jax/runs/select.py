"""Selection: train all trials of a config, and choose a setting by validation.

Trials that can share a program form a group, and groups are trained one after the other. Settings
are compared by the mean score of their trials on validation or held-out examples, then by the mean
loss, as epochs are (`trials.is_better`). After a cross-validation the chosen setting is trained
again, on all training examples.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from mnist_jax.analysis import stats
from mnist_jax.data.splits import Splits
from mnist_jax.report import sweep_plots
from mnist_jax.runs import groups, loop, space
from mnist_jax.runs.loop import Trained
from mnist_jax.runs.space import Trial
from mnist_jax.runtime.progress import Log
from mnist_jax.types import Row, UserError
from mnist_jax.workdir import files
from mnist_jax.workdir.writer import Writer

_HINT = "try a lower config.optim.learning_rate, or config.optim.clip=1"


class Run(NamedTuple):
    """A run and its surroundings."""

    config: ConfigDict
    splits: Splits
    workdir: Path
    log: Log


class Selection(NamedTuple):
    """All trials of a config, trained, and those to evaluate: of the chosen setting."""

    trials: list[Trial]
    rows: list[Row]  # of the trials, as in trials.jsonl
    history: list[Row]  # of their epochs, as in metrics.jsonl
    settings: list[Row]  # from `describe_settings`
    chosen: int  # the best setting
    final: Trained  # the group of the trials to evaluate
    places: list[int]  # of these trials in the group; diverged ones are left out
    evaluated: list[int]  # their rows; none where they were trained again
    folds: tuple[Trained, list[int]] | None  # the cross-validated trials of the chosen setting
    train_seconds: float  # of all trials together
    compile_seconds: float

    @property
    def score(self) -> str:
        """The name of the task's selection score."""
        return self.final.group.plan.recipe.task.score_name


def choose(run: Run, directory: Path, repeats: int = 0) -> Selection:
    """Train all trials of a config and choose the best setting by validation.

    Args:
      run: the test split is not used. With folds there are no validation examples.
      directory: of the checkpoints, from which training resumes.
      repeats: the number of choices of this size that the estimated time covers, with this one; 0:
        print no estimate.

    Raises:
      UserError: all trials diverged, or the training on all folds did.
      progress.Stopped: a signal asked to stop; everything so far is saved.
    """
    config, log = run.config, run.log
    trials = space.expand(config)
    parts = space.groups(config, trials)
    trained, compile_seconds = _train(run, trials, parts, directory, repeats)
    rows: list[Row] = [{"trial": i, **trial._asdict()} for i, trial in enumerate(trials)]
    for part, group in zip(parts, trained, strict=True):
        for i, outcome in zip(part, outcomes(group), strict=True):
            rows[i] |= outcome
    score = trained[0].group.plan.recipe.task.score_name
    settings = describe_settings(rows, score)
    chosen = max(range(len(settings)), key=lambda i: rank(settings[i]))
    if settings[chosen]["diverged"] == settings[chosen]["trials"]:  # then all others diverged, too
        raise UserError(f"all trials diverged; {_HINT}")
    if reason := explain_choice(settings, chosen, score, config.sweep.folds):
        log(reason)
    number = next(n for n, group in enumerate(trained) if chosen in group.group.settings)
    folds = None
    if config.sweep.folds:
        own = [i for i, s in enumerate(trained[number].group.settings) if s == chosen]
        folds = trained[number], own
        whole, alone = space.refit(config, trials, chosen)
        log("training on all folds together:")
        refit = groups.make(whole, alone, run.splits)
        final = loop.train_group(refit, Writer(directory / files.REFIT, log))
        compile_seconds += final.compile_seconds
        part, more = [], final.rows
    else:
        final, part, more = trained[number], parts[number], []
    own = [i for i, setting in enumerate(final.group.settings) if setting == chosen]
    places = [i for i in own if not final.states.diverged[i]]
    if not places:  # without folds there are some
        raise UserError(f"the training on all folds together diverged; {_HINT}")
    history = _history(parts, trained)
    return Selection(
        trials=trials,
        rows=rows,
        history=history,
        settings=settings,
        chosen=chosen,
        final=final,
        places=places,
        evaluated=[part[i] for i in places] if part else [],
        folds=folds,
        train_seconds=sum(row["seconds"] for row in [*history, *more]),
        compile_seconds=compile_seconds,
    )


def _train(
    run: Run,
    trials: Sequence[Trial],
    parts: Sequence[Sequence[int]],
    directory: Path,
    repeats: int,
) -> tuple[list[Trained], float]:
    """Train all groups; return them with the seconds of compilation.

    With halving all groups pause, so that settings of all shapes are compared. Which settings are
    dropped follows from the rows of the epochs, also in a resumed run.
    """
    config, log = run.config, run.log
    single = not space.is_sweep(config)
    trained: list[Trained] = []
    dropped: set[int] = set()
    compile_seconds = 0.0
    later = _work(config, parts, repeats) if repeats and not single else None
    start = 0
    for until in (*sorted(config.sweep.halving), None):
        trained = []
        epochs = (until or config.train.epochs) - start
        start += epochs
        for number, part in enumerate(parts):
            group = groups.make(config, [trials[i] for i in part], run.splits, dropped)
            writer = Writer(directory / str(number), log, run.workdir if single else None)
            if later:
                training = sum(trials[i].setting not in dropped for i in part)
                later = loop.Later(later.groups - 1, later.epochs - training * epochs)
            trained.append(loop.train_group(group, writer, until, dropped, later))
            if trained[-1].compile_seconds:  # it trained, and so the estimate is printed
                later = None
        compile_seconds += sum(group.compile_seconds for group in trained)
        if until is not None:
            score = trained[0].group.plan.recipe.task.score_name
            settings = [trial.setting for trial in trials]
            worse = worse_half(_history(parts, trained), settings, until, score)
            log(f"halving after epoch {until}: {len(worse)} dropped")
            dropped |= worse
    return trained, compile_seconds


def _work(config: ConfigDict, parts: Sequence[Sequence[int]], repeats: int) -> loop.Later:
    """Count the groups and epochs of some choices; halving drops half of the trials each time."""
    trials, start, epochs = sum(map(len, parts)), 0, 0
    for until in (*sorted(config.sweep.halving), config.train.epochs):
        epochs += trials * (until - start)
        trials, start = -(-trials // 2), until
    groups = len(parts) * (1 + len(config.sweep.halving))
    if config.sweep.folds:  # the training on all folds together
        groups += 1
        epochs += config.sweep.seeds * config.train.epochs
    return loop.Later(repeats * groups, repeats * epochs)


def _history(parts: Sequence[Sequence[int]], trained: Sequence[Trained]) -> list[Row]:
    """Return the rows of all groups' epochs, with the number of each trial among all."""
    return [
        {**row, "trial": part[row["trial"]]} if "trial" in row else row
        for part, group in zip(parts, trained, strict=True)
        for row in group.rows
    ]


def worse_half(history: Sequence[Row], settings: Sequence[int], epoch: int, score: str) -> set[int]:
    """Return the settings that successive halving drops after an epoch (Jamieson, Talwalkar 2016).

    Those trained in this epoch are compared by the mean validation score of their trials, each at
    its last epoch so far; a diverged trial counts as the worst. Of equals the earlier setting
    stays; of three settings two.

    Args:
      history: rows as in metrics.jsonl; what follows the epoch does not matter.
      settings: of each trial.
      epoch: counts from 1.
      score: the name of the task's selection score.
    """
    so_far = [row for row in history if row["epoch"] <= epoch]
    training = sorted({settings[row["trial"]] for row in so_far if row["epoch"] == epoch})
    latest = {row["trial"]: row[f"val_{score}"] or 0.0 for row in so_far}
    means = {
        setting: np.mean([latest[trial] for trial in latest if settings[trial] == setting])
        for setting in training
    }
    best_first = sorted(training, key=lambda setting: -means[setting])
    return set(best_first[-(-len(best_first) // 2) :])


def outcomes(trained: Trained) -> list[Row]:
    """Return the status and best epoch of each trial of a group; no figures of diverged ones."""
    group, states, rows, _ = trained
    score = group.plan.recipe.task.score_name
    found = []
    for place in range(len(group.settings)):
        own = [row for row in rows if row.get("trial", 0) == place]
        best: Row = own[max(int(states.best_epoch[place]), 1) - 1]
        if states.diverged[place]:
            status, best = "diverged", {}
        elif len(own) == group.epochs:
            status = "finished"
        else:
            patience = group.plan.patience
            impatient = patience and states.waited[place] >= patience
            status = "stopped" if impatient else "dropped"
        found.append(
            {
                "status": status,
                "epochs": len(own),
                "best_epoch": int(states.best_epoch[place]),
                **{key: best.get(key) for key in ("val_loss", "val_accuracy", f"val_{score}")},
            }
        )
    return found


def describe_settings(rows: Sequence[Row], score: str) -> list[Row]:
    """Summarize the validation of each setting.

    Args:
      rows: of the trials, as in trials.jsonl.
      score: the name of the task's selection score.

    Returns:
      By setting: its `overrides`, the numbers of its `trials` and of `diverged` trials, the
      `epochs` that it was trained, whether halving `dropped` it after them, the `stats.Described`
      of `val_score` and `val_loss` over the trials that did not diverge (None without validation),
      and its `rank`, which is 1 for the best one.
    """
    settings: list[Row] = []
    for number in range(1 + max(row["setting"] for row in rows)):
        own = [row for row in rows if row["setting"] == number]
        whole = [row for row in own if row["status"] != "diverged"]
        settings.append(
            {
                "setting": number,
                "overrides": own[0]["overrides"],
                "trials": len(own),
                "diverged": len(own) - len(whole),
                "epochs": max(row["epochs"] for row in own),
                "dropped": any(row["status"] == "dropped" for row in own),
                "val_score": _describe(whole, score),
                "val_loss": _describe(whole, "loss"),
            }
        )
    best_first = sorted(settings, key=rank, reverse=True)
    ranks = {setting["setting"]: place for place, setting in enumerate(best_first, 1)}
    return [{**setting, "rank": ranks[setting["setting"]]} for setting in settings]


def at_epoch(rows: Sequence[Row], history: Sequence[Row], epoch: int, score: str) -> list[Row]:
    """Return the trials of the settings that trained in an epoch, with their scores by then.

    Args:
      rows: of the trials, as in trials.jsonl.
      history: rows as in metrics.jsonl.
      epoch: counts from 1; a trial that stopped earlier has the score of its last epoch.
      score: the name of the task's selection score.
    """
    so_far = [row for row in history if row["epoch"] <= epoch]
    training = {rows[row["trial"]]["setting"] for row in so_far if row["epoch"] == epoch}
    latest = {row["trial"]: {f"val_{score}": row[f"val_{score}"]} for row in so_far}
    return [{**row, **latest[row["trial"]]} for row in rows if row["setting"] in training]


def rounds(
    rows: Sequence[Row], history: Sequence[Row], halving: Sequence[int], score: str
) -> list[Row]:
    """Return the comparisons of successive halving, each of settings trained equally long.

    Returns:
      For each epoch after which the worse half was dropped, the `epoch` and the `settings` that
      trained in it: the `setting` and the `stats.Described` of its `val_score` by then.
    """
    found = []
    for epoch in sorted(halving):
        whole = [r for r in at_epoch(rows, history, epoch, score) if r["status"] != "diverged"]
        settings = [
            {
                "setting": number,
                "val_score": _describe([row for row in whole if row["setting"] == number], score),
            }
            for number in sorted({row["setting"] for row in whole})
        ]
        found.append({"epoch": epoch, "settings": settings})
    return found


def vs_chosen(
    rows: Sequence[Row], history: Sequence[Row], settings: Sequence[Row], chosen: int, score: str
) -> list[Row]:
    """Add to each setting `vs_chosen`: how much better it is than the chosen one.

    That is a `stats.Comparison` of validation scores over the seeds and folds that both have; None
    of the chosen one, and where they have none in common. A setting that halving dropped is
    compared at its last epoch.
    """
    described = []
    for setting in settings:
        number, found = setting["setting"], None
        trained = at_epoch(rows, history, setting["epochs"], score) if setting["dropped"] else rows
        by_setting: dict[int, dict[tuple[int, int | None], Row]] = {number: {}, chosen: {}}
        for row in trained:
            if row["status"] != "diverged" and row[f"val_{score}"] is not None:
                by_setting.setdefault(row["setting"], {})[row["seed"], row["fold"]] = row
        theirs, own = by_setting[chosen], by_setting[number]
        pairs = [(theirs[key], row) for key, row in own.items() if key in theirs]
        if pairs and number != chosen:
            (a, folds), (b, _) = (
                _validation(one, f"val_{score}") for one in zip(*pairs, strict=True)
            )
            found = stats.paired(a, b, folds, stats.limits_of(score))._asdict()
        described.append({**setting, "vs_chosen": found})
    return described


def _validation(rows: Sequence[Row], key: str) -> tuple[list[float], list[int] | None]:
    """Return the values of the rows that have one, and their folds, if any."""
    rows = [row for row in rows if row[key] is not None]
    folds = [row["fold"] for row in rows]
    return [row[key] for row in rows], folds if folds and folds[0] is not None else None


def _describe(rows: Sequence[Row], metric: str) -> Row | None:
    values, folds = _validation(rows, f"val_{metric}")
    return stats.describe(values, folds, stats.limits_of(metric))._asdict() if values else None


def rank(setting: Mapping[str, Any]) -> tuple[bool, int, int, float, float]:
    """Return the key by which the best setting is the largest.

    First whether halving let it finish, with a trial that did not diverge; of dropped ones the
    epoch; then how few diverged; then the mean score; then the lowest mean loss.
    """
    score, loss = (
        setting[key]["mean"] if setting[key] else -math.inf for key in ("val_score", "val_loss")
    )
    complete = not setting["dropped"] and setting["diverged"] < setting["trials"]
    epochs = setting["epochs"] if setting["dropped"] else 0
    return complete, epochs, -setting["diverged"], score, -loss


def explain_choice(settings: Sequence[Row], chosen: int, score: str, folds: int) -> str:
    """Describe the chosen setting in a line; nothing where validation decided nothing."""
    found = settings[chosen]["val_score"]
    if found is None or (len(settings) == 1 and not folds):
        return ""
    what = f"{folds} held-out folds" if folds else "validation"
    if len(settings) > 1:
        name = sweep_plots.name(settings[chosen]["overrides"])
        what = f"best of {len(settings)} settings by {what}: {name}"
    return f"{what}: {format_score(score, found['mean'], found['sd'])}"


def format_score(score: str, mean: float, sd: float | None = None) -> str:
    """Format a selection score: "accuracy 98.76% ± 0.12", "psnr 21.30 dB"."""
    factor, unit = (1, " dB") if score == "psnr" else (100, "%")
    spread = "" if sd is None else f" ± {factor * sd:.2f}"
    return f"{score.replace('_', ' ')} {factor * mean:.2f}{unit}{spread}"
