"""A section of an entry's explain page: pictures with captions, and facts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pipeline.core.errors import StageError
from pipeline.core.files import write_json
from pipeline.core.paths import RESULTS
from pipeline.explain.subject import Subject
from pipeline.plots.style import Kind, Picture, drawing

PAGE_DIGITS = 4  # of a fact on the page: these repeat from run to run on one machine
COMMITTED_DIGITS = 3  # of a fact in git: these repeat from machine to machine
ALL_FACTS = ("",)


@dataclass
class CaptionedPicture:
    """A picture, and a caption: sentences about this network, with its numbers."""

    picture: Picture
    caption: str


@dataclass
class Section:
    """A part of the page of an entry, the subject.

    facts: numbers, nested by names. unstable: dotted names of the facts that differ between
    machines, because the last bit of a sum decides them (k-means, t-SNE, optimisation in many
    steps): they are on the page, but not committed.
    """

    subject: Subject
    title: str
    pictures: list[CaptionedPicture] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    unstable: tuple[str, ...] = ()

    @contextmanager
    def draw(
        self,
        file: str,
        size: tuple[int, int],
        alt: str,
        caption: str,
        kind: Kind = "chart",
        /,
        **grid: int,
    ) -> Iterator[np.ndarray]:
        """Yield the axes of a new picture, out/<entry>/explain/<file>, and add it at the end.

        size: width and height in CSS pixels. grid: rows, columns and head_px, as in `drawing`.
        """
        with drawing(self.subject.folder / file, *size, **grid) as axes:
            yield axes
        picture = Picture(file, *size, alt, kind=kind)
        self.pictures.append(CaptionedPicture(picture, caption))


def percent(share: float) -> str:
    """Return a share as a caption writes it: "57 %"."""
    return f"{100 * share:.0f} %"


def write_sections(subject: Subject, sections: dict[str, Section]) -> None:
    """Write out/<entry>/explain/page.json, and the stable facts to results/<entry>/explain.json."""
    facts = {name: round_facts(section.facts, name) for name, section in sections.items()}
    pages = [
        {
            "title": section.title,
            "pictures": [asdict(p.picture) | {"caption": p.caption} for p in section.pictures],
        }
        for section in sections.values()
    ]
    write_json(subject.folder / "page.json", {"sections": pages, "facts": facts})
    stable = {
        name: select_stable_facts(facts[name], section.unstable)
        for name, section in sections.items()
        if section.unstable != ALL_FACTS
    }
    write_json(RESULTS / subject.name / "explain.json", {"facts": stable})


def round_facts(value: Any, place: str) -> Any:
    """Return facts as JSON takes them, to PAGE_DIGITS; StageError where one is not finite."""
    if isinstance(value, dict):
        return {str(key): round_facts(part, f"{place}.{key}") for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [round_facts(part, place) for part in value]
    if isinstance(value, bool | str | int | None):
        return value
    require_finite(np.asarray(value), place)
    return float(f"{value:.{PAGE_DIGITS}g}")


def select_stable_facts(value: Any, unstable: tuple[str, ...], place: str = "") -> Any:
    """Return facts without the dotted places `unstable`, floats to COMMITTED_DIGITS."""
    if isinstance(value, dict):
        inner = {key: f"{place}.{key}".lstrip(".") for key in value}
        return {
            key: select_stable_facts(part, unstable, inner[key])
            for key, part in value.items()
            if inner[key] not in unstable
        }
    if isinstance(value, list):
        return [select_stable_facts(part, unstable, place) for part in value]
    return float(f"{value:.{COMMITTED_DIGITS}g}") if isinstance(value, float) else value


def require_finite(values: np.ndarray, what: str) -> np.ndarray:
    """Return the values; StageError where one is not finite: its picture would be empty."""
    if not np.isfinite(values).all():
        cure = "look at the training curves, or lower train.lr"
        raise StageError(f"explain: {what} is not finite; {cure}")
    return values
