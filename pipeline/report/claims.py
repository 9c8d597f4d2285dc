"""The ledger of claims (docs/claims.yaml) with what was measured: a study's table, a number of results/, or a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.core.errors import StageError, hint
from pipeline.report.results import Study, load_json
from pipeline.report.tables import three

LEDGER = Path(__file__).parents[2] / "docs" / "claims.yaml"
STATES = {
    "reproduced": "good",
    "refuted": "bad",
    "corrected": "bad",
    "in part": "",
    "not testable": "quiet",
}


def load() -> list[dict[str, Any]]:
    """Return the groups of the ledger, each with its claims."""
    return YAML(typ="safe").load(LEDGER)


def ledger(root: Path) -> dict[str, Any]:
    """Return the groups, each claim with `found`: [(what, number with its interval)], and the count of each verdict."""
    groups = load()
    counts = dict.fromkeys(STATES, 0)
    for claim in [claim for group in groups for claim in group["claims"]]:
        counts[claim["verdict"]] += 1
        claim |= {"state": STATES[claim["verdict"]], "found": found(claim, root)}
    return {"groups": groups, "counts": counts}


def found(claim: dict[str, Any], root: Path) -> list[tuple[str, str]]:
    """Return what results/ holds of a claim; nothing where it has no number, or where that is not made yet."""
    if "study" in claim:
        text = Study(claim["study"], "", root).text
        if not text:
            return []
        head, *rows = text[1]
        table = f"results/studies/{claim['study']}.md"
        by_row = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
        found = [named(by_row, setting, f"row of {table}", claim) for setting in claim["settings"]]
        cells = [named(row, claim["of"], f"column of {table}", claim) for row in found]
        return list(zip(claim["settings"], cells, strict=True))
    if "file" in claim and (values := load_json(root / claim["file"], "dvc repro")):
        key = claim["key"]
        ends = [three(values[end]) for end in (f"{key}_low", f"{key}_high") if end in values]
        value = named(values, key, f"number of {claim['file']}", claim)
        return [(key.replace("_", " "), three(value) + (f" [{', '.join(ends)}]" if ends else ""))]
    return []


def named(table: dict[str, Any], name: str, what: str, claim: dict[str, Any]) -> Any:
    """Return table[name], or raise StageError: the ledger names what the study or the metric is not called now."""
    if name not in table:
        place = f"docs/claims.yaml {claim['id']}"
        raise StageError(
            f"{place}: expected a {what}, got {name!r}; {hint(name, [str(key) for key in table])}"
        )
    return table[name]
