"""The page of how an entry's network sees: the sections of stage explain."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pipeline.plots.style import Picture
from pipeline.report.result_files import Entry


def page_name(entry: Entry) -> str:
    """Return the page's file name without suffix; names of entries hold no dot."""
    return f"{entry.name}.explain"


def explain_sections(entry: Entry, img: Path) -> list[dict[str, Any]]:
    """Copy the pictures of stage explain; return its sections, none if it has not run."""
    sections: list[dict[str, Any]] = []
    for section in entry.explain_sections or []:
        sections.append({"title": section["title"], "pictures": []})
        for drawn in section["pictures"]:
            name = f"{entry.name}.{drawn['file']}"
            shutil.copyfile(entry.picture(drawn["file"]), img / name)
            width, height, alt, kind = (drawn[key] for key in ("width", "height", "alt", "kind"))
            picture = Picture(name, width, height, alt, kind=kind)
            sections[-1]["pictures"].append({"picture": picture, "caption": drawn["caption"]})
    return sections
