"""Tables of text for a terminal: aligned columns."""

from collections.abc import Sequence

from convline.terminal_text import printable_line

CELL_LIMIT = 1000  # characters


def format_table(rows: Sequence[Sequence[object]], right_aligned: Sequence[int] = ()) -> str:
    """Return rows as lines of aligned columns. A row may be shorter than others.

    A float is written with four digits, None as "-". right_aligned: indices of columns.
    """
    cells = [[printable_line(_format_cell(cell), CELL_LIMIT) for cell in row] for row in rows]
    n_columns = max(map(len, cells), default=0)
    widths = [max(len(row[k]) for row in cells if k < len(row)) for k in range(n_columns)]
    lines = []
    for row in cells:
        aligned = [
            cell.rjust(widths[k]) if k in right_aligned else cell.ljust(widths[k])
            for k, cell in enumerate(row)
        ]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


def _format_cell(cell: object) -> str:
    if cell is None:
        return "-"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
