"""The claims of the lecture notes (docs/claims.yaml), each with its measured values or its test.

Stage report shows them as a page; `make readme` writes them into docs/lecture-notes.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.core.errors import StageError, hint
from pipeline.evaluate.metric_catalogue import CATALOGUE
from pipeline.plots.style import format_number
from pipeline.report.result_files import Study, load_json

CLAIMS_FILE = Path(__file__).parents[2] / "docs" / "claims.yaml"
VERDICT_STATES = {
    "reproduced": "good",
    "refuted": "bad",
    "corrected": "bad",
    "in part": "",
    "not testable": "quiet",
}


def load_claims() -> list[dict[str, Any]]:
    """Return the groups of docs/claims.yaml, each with its claims."""
    return YAML(typ="safe").load(CLAIMS_FILE)


def claims_context(root: Path) -> dict[str, Any]:
    """Return the context of claims.html.j2: claims with measured values, and verdict counts."""
    groups = load_claims()
    counts = dict.fromkeys(VERDICT_STATES, 0)
    for claim in [claim for group in groups for claim in group["claims"]]:
        counts[claim["verdict"]] += 1
        claim |= {"state": VERDICT_STATES[claim["verdict"]], "found": measured_values(claim, root)}
    return {"groups": groups, "counts": counts}


def claims_markdown(root: Path) -> str:
    """Return the claims as Markdown: the verdict counts, then a table for each group.

    Links are relative to docs/.
    """
    context = claims_context(root)
    counts = ", ".join(f"{n} {verdict}" for verdict, n in context["counts"].items())
    parts = [f"{counts}. Brackets hold 95 % intervals over seeds or test images."]
    for group in context["groups"]:
        rows = [
            [claim["id"], claim["claim"], measured_text(claim), claim["verdict"], source(claim)]
            for claim in group["claims"]
        ]
        lines = [["Id", "The notes say", "Measured", "Verdict", "Source"], ["---"] * 5, *rows]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        parts.append(f"### {group['group']}\n\n{table}")
    return "\n\n".join(parts)


def measured_text(claim: dict[str, Any]) -> str:
    """Return measured values, the reason why nothing is measured, and the note as one cell."""
    lines = [f"{name}: {value}" for name, value in claim["found"]]
    if not lines and "reason" not in claim:
        lines = ["by a test" if "test" in claim else "pending"]
    return "<br>".join([*lines, *(claim[key] for key in ("reason", "note") if key in claim)])


def source(claim: dict[str, Any]) -> str:
    """Return a link to the study's table, the test or the file of a claim; a dash if none."""
    if "study" in claim:
        table = f"../results/studies/{claim['study']}.md"
        return f"study [{claim['study']}]({table}), {claim['of']}"
    if "test" in claim:
        path, name = claim["test"].split("::")
        return f"[`{name}`](../{path})"
    return f"[{Path(claim['file']).name}](../{claim['file']})" if "file" in claim else "–"


def measured_values(claim: dict[str, Any], root: Path) -> list[tuple[str, str]]:
    """Return [(name, value with interval)] of a claim from results/, [] without results."""
    if "study" in claim:
        text = Study(claim["study"], root).text
        if not text:
            return []
        head, *rows = text[1]
        table = f"results/studies/{claim['study']}.md"
        by_row = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
        measured = []
        for setting in claim["settings"]:
            row = look_up(by_row, setting, f"row of {table}", claim)
            measured.append((setting, look_up(row, claim["of"], f"column of {table}", claim)))
        return measured
    if "file" in claim and (values := load_json(root / claim["file"], "dvc repro")):
        key = claim["key"]
        rounded = CATALOGUE[key].text if key in CATALOGUE else format_number
        keys = [end for end in (f"{key}_low", f"{key}_high") if end in values]
        ends = ", ".join(rounded(values[end]) for end in keys)
        value = rounded(look_up(values, key, f"number of {claim['file']}", claim))
        return [(key.replace("_", " "), f"{value} [{ends}]" if ends else value)]
    return []


def look_up(table: dict[str, Any], name: str, what: str, claim: dict[str, Any]) -> Any:
    """Return table[name]; raise StageError with the known names if the claim names another one."""
    if name not in table:
        place = f"docs/claims.yaml {claim['id']}: expected a {what}"
        raise StageError(f"{place}, got {name!r}; {hint(name, [str(key) for key in table])}")
    return table[name]
