"""The overview of the studies, and the page of each study: its claim, verdicts, table and plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.plots import style
from pipeline.report.claims import VERDICT_STATES, load_claims
from pipeline.report.result_files import Study


def study_contexts(studies: list[Study], img: Path) -> list[dict[str, Any]]:
    """Return the context of study.html.j2 for each study: its plot, and the claims that use it."""
    claims = [claim for group in load_claims() for claim in group["claims"]]
    return [
        {
            "study": study,
            "picture": copy_plot(study, img),
            "claims": [
                claim | {"state": VERDICT_STATES[claim["verdict"]]}
                for claim in claims
                if claim.get("study") == study.name
            ],
        }
        for study in studies
    ]


def copy_plot(study: Study, img: Path) -> style.Picture | None:
    """Copy the plot of a study to the site; None if stage study has not drawn it."""
    alt = f"Result of the study {study.name}; the table of its page holds the same numbers."
    path, source = img / f"study_{study.name}.png", study.picture
    return style.copy_picture(source, path, alt) if source else None


def page_name(study: str) -> str:
    """Return the name of a study's page; an entry's name has no underscore."""
    return f"study_{study}"
