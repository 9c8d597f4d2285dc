"""Pages of results/ whose tables are measured: what a benchmark replaces, between two marks."""

import re
from pathlib import Path

from pipeline.core.errors import StageError

END = "<!-- end -->"


def write_part(file: Path, part: str, text: str) -> None:
    """Replace what lies between `<!-- part -->` and `<!-- /part -->` of a page."""
    before, _, after = split_at(file, part)
    file.write_text(f"{before}\n{text}\n\n{after}", encoding="utf-8")


def write_block(file: Path, part: str, processor: str, text: str) -> None:
    """Replace this processor's block of a part, or add one: figures of one machine say little of
    another's. A block starts with the name of its processor, and ends with `<!-- end -->`.
    """
    _, old, _ = split_at(file, part)
    blocks = [block.strip() for block in old.split(END) if block.strip()]
    kept = [block for block in blocks if not block.startswith(f"{processor}, ")]
    place = next((k for k, block in enumerate(blocks) if block not in kept), len(kept))
    kept.insert(place, text.strip())
    write_part(file, part, "\n\n".join(f"{block}\n\n{END}" for block in kept))


def split_at(file: Path, part: str) -> list[str]:
    """Return what is before a part of a page, in it and after it; StageError without its marks."""
    page = file.read_text(encoding="utf-8")
    parts = re.split(rf"(?<=<!-- {part} -->\n)(.*)(?=<!-- /{part} -->)", page, flags=re.DOTALL)
    if len(parts) != 3:
        raise StageError(f"{file.name}: expected <!-- {part} --> and <!-- /{part} -->; write them")
    return parts
