"""What all tasks have in common: the truth that a user names, the model's answers, and figures."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from convline.errors import InputError
from convline.images.image_model import ImageModel, Options
from convline.jobs.image_job import answer_sources
from convline.report.confidence_interval import wilson_interval
from convline.runtime.host import usable_cores
from convline.runtime.sources import Source
from convline.terminal_text import printable_line
from convline.timeseries.read_options import ReadOptions

Report = dict[str, Any]
Unread = list[dict[str, str]]  # path and error of what is not evaluated
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Truth:
    """The paths that a user names: at least one of them."""

    path: str | None
    labels: str | None  # what is true of the images, where path does not say it
    reading: ReadOptions | None = None  # how a file of series is read

    @property
    def where(self) -> str:
        return str(self.labels or self.path)

    def coco(self) -> tuple[Path, Path | None]:
        """Return COCO's JSON and the folder of its images: path where labels names the JSON."""
        return Path(self.where), Path(self.path) if self.labels and self.path else None

    def require_one(self) -> None:
        """Raise InputError if both paths are given."""
        if self.path and self.labels:
            raise InputError(self.labels, f"expected either PATH or --labels, got {self.path} too")


def answers(
    model: ImageModel[Answer], sources: list[Source], options: Options, where: str, unread: Unread
) -> Iterator[tuple[int, Answer]]:
    """Yield position and answer of each image; those that cannot be read are added to `unread`.

    Raises InputError if none can be read.
    """
    found = answer_sources(model, sources, batch=32, workers=usable_cores(), options=options)
    for place, (source, answer) in enumerate(zip(sources, found, strict=True)):
        if isinstance(answer, str):
            unread.append({"path": source.path, "error": answer})
        else:
            yield place, answer
    if len(unread) == len(sources):
        reason = f"none of {len(unread)} could be read: {unread[0]['error']}"
        raise InputError(where, f"expected images, {reason}")


def label_indices(model_labels: list[str], labels: list[str], where: str) -> list[int]:
    """Return the model's index of each label. Raises InputError for one that it does not know."""
    for label in sorted({*labels} - {*model_labels}):
        close = difflib.get_close_matches(label, model_labels, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        known = printable_line(", ".join(model_labels), 500)
        reason = f"expected the model's labels, got {label!r}; {hint}it knows {known}"
        raise InputError(where, reason)
    return [model_labels.index(label) for label in labels]


def proportion(right: int, n: int) -> dict[str, float] | None:
    """Return a share with its 95 % interval and counts; None of nothing."""
    if not n:
        return None
    low, high = wilson_interval(right, n)
    return {"value": right / n, "low": low, "high": high, "right": right, "n": n}


def format_proportion(figure: dict[str, float] | None) -> str | None:
    if figure is None:
        return None
    interval = f"[{100 * figure['low']:.1f}, {100 * figure['high']:.1f}] (95 %, Wilson)"
    return f"{100 * figure['value']:.1f} % {interval}, {figure['right']} of {figure['n']}"
