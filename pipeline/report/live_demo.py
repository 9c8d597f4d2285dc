"""What the report's Live page needs of a packaged file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from convline.model_file.onnx_file import ModelFile

# The resize of a user's picture that the page implements.
PICTURE = {"kind": "image", "colour": "rgb", "fit": "stretch", "interpolation": "bilinear"}


@dataclass(frozen=True)
class Demo:
    """A section of the page: its template, what this says, and what the script reads."""

    template: str
    context: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)


def demo_of_pictures(
    file: ModelFile,
    title: str,
    caption: str,
    columns: list[str],
    min_score: float | None = None,
    **data: Any,
) -> Demo | None:
    """Return the demo of a file that reads pictures; None where the page cannot resize them.

    title: what the reader does. caption, columns: of the table of the answer. min_score: where a
    slider of the least score begins.
    """
    rule = file.json["input"]
    if not PICTURE.items() <= rule.items():
        return None
    table = {"title": title, "caption": caption, "columns": columns}
    context = {**table, "size": rule["size"], "min_score": min_score}
    return Demo("live_images.html.j2", context, data)
