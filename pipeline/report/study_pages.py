"""The overview of the studies, and the page of each study: its claim, verdicts, table and plot."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from pipeline.plots.studies import draw_study
from pipeline.plots.style import Picture
from pipeline.report.claims import VERDICT_STATES, load_claims
from pipeline.report.result_files import Study


def study_contexts(studies: list[Study], img: Path) -> list[dict[str, Any]]:
    """Return the context of study.html.j2 for each study: its plot, and the claims that use it."""
    claims = [claim for group in load_claims() for claim in group["claims"]]
    return [
        {
            "study": study,
            "picture": draw_plot(study, img),
            "claims": [
                claim | {"state": VERDICT_STATES[claim["verdict"]]}
                for claim in claims
                if claim.get("study") == study.name
            ],
        }
        for study in studies
    ]


def draw_plot(study: Study, img: Path) -> Picture | None:
    """Draw a study from its table; None where that lacks a setting or measure of the recipe."""
    if not study.recipe:
        return None
    measured = {(row["setting"], row["measure"]) for row in study.rows}
    names = [*study.recipe.measures, *study.recipe.curves]
    if not {*itertools.product(study.recipe.settings, names)} <= measured:
        return None
    alt = f"Result of the study {study.name}; the table of its page holds the same numbers."
    return draw_study(study.recipe, study.rows, img / f"study_{study.name}.png", alt)


def page_name(study: str) -> str:
    """Return the name of a study's page; an entry's name has no underscore."""
    return f"study_{study}"
