"""Pages of results/ whose tables are measured: what a benchmark replaces, between two marks."""

import re
from pathlib import Path

from pipeline.core.errors import StageError


def write_part(file: Path, part: str, text: str) -> None:
    """Replace what lies between `<!-- part -->` and `<!-- /part -->` of a page."""
    before, after = split_at(file, part)
    file.write_text(f"{before}\n{text}\n\n{after}", encoding="utf-8")


def split_at(file: Path, part: str) -> list[str]:
    """Return what is before and after a part of a page; StageError without its two marks."""
    page = file.read_text(encoding="utf-8")
    parts = re.split(rf"(?<=<!-- {part} -->\n).*(?=<!-- /{part} -->)", page, flags=re.DOTALL)
    if len(parts) != 2:
        raise StageError(f"{file.name}: expected <!-- {part} --> and <!-- /{part} -->; write them")
    return parts
