"""The number that a cell of text holds."""

import math

NAN = frozenset({"", "na", "n/a", "nan", "null", "none"})  # compared in lower case


def number(cell: str, decimal: str) -> float | None:
    """Return the number of a cell, nan for a missing one, None for text; 1_000 and inf are text."""
    if cell.lower() in NAN:
        return math.nan
    if "_" in cell or (decimal == "," and "." in cell):
        return None
    try:
        value = float(cell.replace(decimal, "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
