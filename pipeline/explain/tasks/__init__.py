"""The sections of an entry's explain page, by its task: a module for each."""

from __future__ import annotations

from typing import Protocol

from pipeline.explain.sections import Section
from pipeline.explain.subject import Subject
from pipeline.explain.tasks import (
    captioning,
    classification,
    detection,
    forecasting,
    segmentation,
)


class SectionModule(Protocol):
    """A module that makes one section; its name is that of the section's facts."""

    __name__: str

    def make_section(self, subject: Subject) -> Section | None:
        """Return the section; None where the network or its data have nothing of the kind."""


class ExplainTask(Protocol):
    """The names of a task's module."""

    @property
    def SECTIONS(self) -> tuple[SectionModule, ...]:
        """In the order of the page."""

    @property
    def SYNTHESIS(self) -> tuple[SectionModule, ...]:
        """Of entries with `synthesis: true`, at the end of the page."""


TASKS: dict[str, ExplainTask] = {
    "classification": classification,
    "forecasting": forecasting,
    "detection": detection,
    "segmentation": segmentation,
    "captioning": captioning,
}
