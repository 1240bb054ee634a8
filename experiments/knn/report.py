"""Tables of `experiments.knn`."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments import tables

Row = Mapping[str, Any]

WORDS = {  # formats of the figures
    "validation_accuracy_percent": "{:.2f}% of validation",
    "test_accuracy_percent": "{:.2f}% of test",
    "f1_macro": "F1 {:.4f} macro",
    "f1_weighted": "{:.4f} weighted",
    "noisy_error": "{:.1f} levels off",
    "error": "then {:.1f}",
    "noisy_psnr": "PSNR {:.1f} dB",
    "psnr": "then {:.1f}",
}


def to_markdown(record: Mapping[str, Row]) -> str:
    """Accuracy of each way of using neighbours."""
    header = ["data", "images", "k", "weights", "result", "neighbours, s"]
    rows = [row for name, row in record.items() if name != "speed"]
    cells = [
        [
            row["data"],
            row["what"],
            f"{row['k']}",
            row["weights"],
            ", ".join(said.format(row[key]) for key, said in WORDS.items() if key in row),
            f"{row['seconds']:.1f}",
        ]
        for row in rows
    ]
    note = (
        "Exact, by L2 where nothing else is said; of validation: out of folds of the training set. "
        "Seconds of the search for the neighbours, without compilation; "
    )
    return tables.markdown(header, cells, note + _sources(rows))


def speed_to_markdown(record: Mapping[str, Row]) -> str:
    """Seconds of ours and of scikit-learn."""
    header = ["k", "queries", "references", "ours, s", "scikit-learn, float32", "float64"]
    header += ["times faster"]
    rows = [record["speed"]] if "speed" in record else []
    cells, note = [], ""
    for row in rows:
        ours, single, double = (row["seconds"][name] for name in ("ours", "float32", "float64"))
        counts = (f"{row[key]:,}" for key in ("k", "queries", "references"))
        times = (f"{seconds:.2f}" for seconds in (ours, single, double))
        cells.append([*counts, *times, f"{min(single, double) / ours:.1f}"])
        turns = len(row["seconds_of_each"]["ours"])
        note = (
            f"{row['data']}, from bytes to classes; medians of {turns} interleaved turns, without "
            f'compiling; scikit-learn {row["scikit_learn"]} with `algorithm="brute"`, the quicker '
            f"of both; {row['different']} of our predictions are not those of its float64, "
            f"{row['different_without_a_tie']} of these without a tie for the last neighbour; "
        )
    return tables.markdown(header, cells, note + _sources(rows))


def _sources(rows: Sequence[Row]) -> str:
    return " ".join(dict.fromkeys(map(tables.source, rows)))


TABLES = (to_markdown, speed_to_markdown)
