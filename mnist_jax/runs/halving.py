"""Successive halving (Jamieson and Talwalkar 2016): the worse half of the settings is dropped."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def worse_half(
    history: Sequence[Mapping[str, Any]], settings: Sequence[int], epoch: int
) -> set[int]:
    """The settings that stop after an epoch: the worse half of those that were trained in it.

    They are compared by the mean validation accuracy of their members, each at its last epoch so
    far; who has diverged counts as 0. Of equals the earlier setting stays, of three settings two.

    Args:
      history: rows as in metrics.jsonl; what came after the epoch does not matter.
      settings: of each member.
      epoch: counts from 1.
    """
    so_far = [row for row in history if row["epoch"] <= epoch]
    training = sorted({settings[row["member"]] for row in so_far if row["epoch"] == epoch})
    latest = {row["member"]: row["val_accuracy"] or 0.0 for row in so_far}
    scores = {
        setting: np.mean([latest[member] for member in latest if settings[member] == setting])
        for setting in training
    }
    best_first = sorted(training, key=lambda setting: -scores[setting])
    return set(best_first[-(-len(best_first) // 2) :])
