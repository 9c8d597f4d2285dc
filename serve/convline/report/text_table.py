"""Text tables for people: aligned columns, and cells that cannot move the cursor."""

from collections.abc import Sequence


def render(rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """Return rows of cells as lines of columns; those of `numbers` are aligned to the right, short rows are fine."""
    cells = [[printable(cell, 1000) for cell in row] for row in rows]
    columns = range(max(map(len, cells), default=0))
    widths = [max(len(row[column]) for row in cells if column < len(row)) for column in columns]
    lines = []
    for row in cells:
        aligned = [
            f"{c:>{w}}" if k in numbers else f"{c:{w}}"
            for k, (c, w) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


def printable(text: str, limit: int = 160) -> str:
    """Return one printable line: a name from a model file must not move the cursor."""
    line = "".join(char if char.isprintable() else "?" for char in text)
    return line if len(line) <= limit else line[: limit - 3] + "..."
