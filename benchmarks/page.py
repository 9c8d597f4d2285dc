"""Pages of results/ whose tables are measured: what a benchmark replaces, between two marks."""

import re
from pathlib import Path

from pipeline.core.errors import StageError


def write_part(file: Path, part: str, text: str) -> None:
    """Replace what lies between `<!-- part -->` and `<!-- /part -->` of a page."""
    page = file.read_text(encoding="utf-8")
    parts = re.split(rf"(?<=<!-- {part} -->\n).*(?=<!-- /{part} -->)", page, flags=re.DOTALL)
    if len(parts) != 2:
        raise StageError(f"{file.name}: expected <!-- {part} --> and <!-- /{part} -->; write them")
    file.write_text(f"{parts[0]}\n{text}\n\n{parts[1]}", encoding="utf-8")
