"""The tasks by name, and what each makes of a data set's classes; plain data, without JAX."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from mnist_jax.types import Fields, UserError

# The losses of each task, its own one first.
LOSSES = {
    "multiclass": ("softmax", "hinge", "squared"),
    "one_vs_rest": ("hinge", "logistic", "squared"),
    "one_vs_one": ("hinge", "logistic", "squared"),
    "binary": ("logistic", "hinge", "squared"),
    "multilabel": ("logistic", "hinge", "squared"),
    "denoise": ("squared", "logistic"),
}


def loss(config: Fields) -> str:
    """The loss that `config.task` asks for, or else the task's own."""
    return config["loss"] or LOSSES[config["name"]][0]


def smoothed(config: Fields) -> bool:
    """Whether label smoothing has a meaning for the loss that `config.task` asks for."""
    return loss(config) in ("softmax", "logistic") and config["name"] != "denoise"


def check(config: Fields) -> None:
    """Passes if `config.task` is one; whether the data has its classes shows in `relabel`.

    Raises:
      UserError: names the key and what it may be.
    """
    name = config["name"]
    if name not in LOSSES:
        raise UserError(f"config.task.name: no '{name}'; there are {', '.join(LOSSES)}")
    if loss(config) not in LOSSES[name]:
        raise UserError(
            f"config.task.loss: '{name}' has no '{loss(config)}'; it has {', '.join(LOSSES[name])}"
        )
    if name == "binary" and not config["positive"]:
        raise UserError("config.task.positive: which classes are a yes? (5,) asks: is it a 5")
    if name == "denoise" and config["noise"] < 1:
        raise UserError(f"config.task.noise: {config['noise']} grey levels; give 1 or more")
    if name == "multilabel":
        _read_labels(config)


def relabel(
    config: Fields, classes: Int32[np.ndarray, " n"], class_names: Sequence[str]
) -> tuple[Int32[np.ndarray, "n ..."], tuple[str, ...]]:
    """What a task asks of each example, and the names of the answers.

    Returns:
      For "binary" 1 or 0 by whether the class is among `config.task.positive`; for "multilabel" a
      row of 1s and 0s, one for each of `config.task.labels`; else the classes themselves.

    Raises:
      UserError: the data has no such class, or has no other.
    """
    if config["name"] == "binary":
        positive = config["positive"]
        _check_classes("positive", positive, class_names)
        yes = " or ".join(class_names[i] for i in positive)
        return np.isin(classes, positive).astype(np.int32), (f"not {yes}", yes)
    if config["name"] == "multilabel":
        sets = _read_labels(config)
        for members in sets.values():
            _check_classes("labels", members, class_names)
        columns = [np.isin(classes, members) for members in sets.values()]
        return np.stack(columns, axis=1).astype(np.int32), tuple(sets)
    return classes, tuple(class_names)


def _read_labels(config: Fields) -> dict[str, list[Any]]:
    wrong = UserError(
        'config.task.labels: is not names with their classes, as {"large": [7, 8, 9], "one": [1]}'
    )
    try:
        found: Any = json.loads(config["labels"])
    except ValueError as error:
        raise wrong from error
    if not isinstance(found, dict) or not found:
        raise wrong
    if not all(isinstance(members, list) and members for members in found.values()):
        raise wrong
    return found


def _check_classes(key: str, members: Sequence[Any], class_names: Sequence[str]) -> None:
    count = len(class_names)
    for member in members:
        if type(member) is not int or not 0 <= member < count:
            raise UserError(f"config.task.{key}: {member!r} is no class; they are 0 to {count - 1}")
    if len(set(members)) == count:
        raise UserError(f"config.task.{key}: {list(members)} are all classes there are")
