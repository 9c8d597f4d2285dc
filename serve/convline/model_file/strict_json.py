"""JSON that every reader accepts: null where Python would write NaN or Infinity."""

import json
import math
from typing import Any


def to_json(content: Any, **options: Any) -> str:
    """Return content as JSON (RFC 8259); numbers that are not finite become null.

    options: those of json.dumps.
    """
    return json.dumps(_finite(content), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value
