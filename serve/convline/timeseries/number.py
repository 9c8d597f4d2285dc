"""The number that a cell of text holds."""

import math
import re

NAN = frozenset({"", "na", "n/a", "nan", "null", "none"})  # compared in lower case

GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+(,\d*)?")  # 1.234.567,8: points between thousands


def parse_number(cell: str, decimal: str) -> float | None:
    """Return the number of a cell, nan for a missing one, None for text; 1_000 and inf are text.

    decimal: "." or ",", beside which points between thousands are left out.
    """
    if cell.lower() in NAN:
        return math.nan
    if decimal == "," and "." in cell:
        if not GROUPED.fullmatch(cell):
            return None
        cell = cell.replace(".", "")
    if "_" in cell:
        return None
    try:
        value = float(cell.replace(decimal, "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
