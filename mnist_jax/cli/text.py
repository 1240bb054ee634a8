"""Tables as text."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format columns of text: words to the left, numbers and their headings to the right."""
    columns = []
    for heading, *cells in zip(header, *rows, strict=True):
        numbers = all(cell[:1].isdigit() for cell in cells if cell)
        width = max(map(len, (heading, *cells)))
        columns.append(
            [cell.rjust(width) if numbers else cell.ljust(width) for cell in (heading, *cells)]
        )
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))
