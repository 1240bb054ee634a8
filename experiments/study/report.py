"""Tables of `experiments.study`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments import tables
from experiments.study.row import PARTS


def to_markdown(record: Mapping[str, Any]) -> str:
    """The figures of each system, theirs and ours."""
    cells = []
    for row in record["rows"]:
        ours, theirs = row["reproduced"] and row["reproduced"]["seconds"], row["their_seconds"]
        quoted = {
            "theirs": _or_dash(row["theirs"], "{:.2f}"),
            "theirs, s": _or_dash(theirs, "{:,.0f}"),
            "times faster": _or_dash(theirs / ours if ours and theirs else None, "{:,.1f}"),
        }
        cells.append(
            {
                "study": row["study"],
                "data": row["data"],
                "system": row["system"],
                "figure": row["metric"],
                "a constant": _or_dash(row["constant"], "{:.2f}"),
                "theirs": quoted["theirs"],
                "reproduced": _spread(row["reproduced"]),
                "ours at its best": _spread(row["best"]),
                "gain (95% interval)": tables.interval(row["gain"]) if row["gain"] else "-",
                "seconds": _or_dash(ours, "{:,.1f}"),
                **quoted,
            }
        )
        if record.get("quick"):  # none is there, and none could be compared
            cells[-1] = {key: cell for key, cell in cells[-1].items() if key not in quoted}
    both = [
        (row["reproduced"]["seconds"], row["their_seconds"])
        for row in record["rows"]
        if row["reproduced"] and row["reproduced"]["seconds"] and row["their_seconds"]
    ]
    revisions = ", ".join(sorted({tables.short(row["git_revision"]) for row in record["rows"]}))
    of_rows = {"device": tables.devices(record["rows"]), "git_revision": None}
    ours, theirs = (sum(column) for column in zip(*both, strict=True)) if both else (0, 0)
    quick = (
        "A quick check of the code on digits, with one epoch and one seed: no figure refers to "
        "MNIST or Fashion-MNIST. "
        if record.get("quick")
        else ""
    )
    times = (
        "; theirs on their machines. Where both are known, "
        f"{len(both)} systems took {ours:,.0f} s, theirs {theirs:,.0f} s"
        if both
        else ""
    )
    note = (
        f"{quick}Mean ± standard deviation over seeds or folds (their number). A constant: the "
        "accuracy of always answering the most frequent class of the evaluated images. "
        "Reproduced: their system with their budget. Ours at its best: our choice of the same or a "
        "better kind. Gain: paired by seed; by fold, corrected for shared training examples "
        "(Nadeau and Bengio 2003); by test image if one of the two has neither (for PSNR, against "
        "the single value). Seconds: the median training; for kNN the search for neighbours of the "
        "whole grid"
        f"{times}. {seen(record['rows'])}Measured at revisions "
        f"{revisions}; {tables.source({**record, **of_rows})}"
    )
    return tables.markdown([*cells[0]], [[*row.values()] for row in cells], note)


def seen(rows: Sequence[Mapping[str, Any]]) -> str:
    """Disclose the choices that have seen the images that score them; empty if there are none."""
    systems: dict[str, list[str]] = {}
    for row in rows:
        if choice := row.get("seen"):
            systems.setdefault(choice, []).append(row["system"])
    if not systems:
        return ""
    told = "; ".join(f"{choice} ({', '.join(names)})" for choice, names in systems.items())
    return (
        "Some figures are flattered, because a choice has seen the images that score them: "
        f"{told}. The test accuracies among the further figures are not. "
    )


def facts_to_markdown(record: Mapping[str, Any]) -> str:
    """Further figures of the systems that have more than one."""
    header = ["system", "which", "figures", *([] if record.get("quick") else ["the study's"])]
    cells = [
        [
            row["system"],
            part,
            ", ".join(f"{name} {value:.4g}" for name, value in row[part]["facts"].items()) or "-",
            *([] if record.get("quick") else [row["note"] or "-"]),
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
