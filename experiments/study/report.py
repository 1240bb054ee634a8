"""Tables of `experiments.study`."""

from collections.abc import Callable, Mapping
from typing import Any

from experiments import tables
from experiments.study.page import PARTS


def to_markdown(record: Mapping[str, Any]) -> str:
    """The figures of each system, theirs and ours."""
    header = [
        *("study", "data", "system", "figure", "a constant", "theirs", "reproduced"),
        "ours at its best",
        *("gain (95% interval)", "seconds", "theirs, s", "times faster"),
    ]
    cells = []
    for row in record["rows"]:
        ours, theirs = row["reproduced"] and row["reproduced"]["seconds"], row["their_seconds"]
        cells.append(
            [
                *(row["study"], row["data"], row["system"], row["metric"]),
                _or_dash(row["constant"], "{:.2f}"),
                _or_dash(row["theirs"], "{:.2f}"),
                _spread(row["reproduced"]),
                _spread(row["best"]),
                tables.interval(row["gain"]) if row["gain"] else "-",
                _or_dash(ours, "{:,.1f}"),
                _or_dash(theirs, "{:,.0f}"),
                _or_dash(theirs / ours if ours and theirs else None, "{:,.1f}"),
            ]
        )
    both = [
        (row["reproduced"]["seconds"], row["their_seconds"])
        for row in record["rows"]
        if row["reproduced"] and row["reproduced"]["seconds"] and row["their_seconds"]
    ]
    revisions = ", ".join(sorted({tables.short(row["git_revision"]) for row in record["rows"]}))
    of_rows = {"device": tables.devices(record["rows"]), "git_revision": None}
    ours, theirs = (sum(column) for column in zip(*both, strict=True)) if both else (0, 0)
    note = (
        "Mean ± standard deviation over seeds or folds (their number). A constant: the accuracy "
        "of always answering the most frequent class of the images it is judged on. Reproduced: "
        "their system, with their budget. At its best: our choice of the same kind, or of a better "
        "kind. Gain: paired by seed, by fold with allowance for the examples that the folds' "
        "trainings share (Nadeau and Bengio 2003), by test image where one of both has neither "
        "(of PSNR beside the one value). Seconds: the training of one, the median of several; of "
        "kNN the search for neighbours, with all of a grid's; on their machines for theirs; where "
        "both are known, "
        f"{ours:,.0f} s for {len(both)} systems, and {theirs:,.0f} s. Measured at revisions "
        f"{revisions}; {tables.source({**record, **of_rows})}"
    )
    return tables.markdown(header, cells, note)


def facts_to_markdown(record: Mapping[str, Any]) -> str:
    """Further figures of the systems that have more than one."""
    header = ["system", "which", "figures", "the study's"]
    cells = [
        [
            row["system"],
            part,
            ", ".join(f"{name} {value:.4g}" for name, value in row[part]["facts"].items()) or "-",
            row["note"] or "-",
        ]
        for row in record["rows"]
        for part in PARTS
        if row[part] and (row[part]["facts"] or (row["note"] and part == "reproduced"))
    ]
    return tables.markdown(header, cells, "In percent where nothing else is said.")


def _spread(outcome: Mapping[str, Any] | None) -> str:
    if outcome is None:
        return "-"
    found = outcome["described"]
    spread = "" if found["sd"] is None else f" ± {found['sd']:.2f} ({found['n']})"
    return f"{found['mean']:.2f}{spread}"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


TABLES: tuple[Callable[[Mapping[str, Any]], str], ...] = (to_markdown, facts_to_markdown)
