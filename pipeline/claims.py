"""The ledger of claims (docs/claims.yaml) with what was measured: a study's table, a number of results/, or a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.evidence import Study, load_json
from pipeline.table import three

LEDGER = Path(__file__).parents[1] / "docs" / "claims.yaml"
STATES = {"reproduced": "good", "refuted": "bad", "corrected": "bad", "in part": "", "not testable": "quiet"}


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
        column = head.index(claim["of"])
        table = {row[0]: row[column] for row in rows}
        return [(setting, table[setting]) for setting in claim["settings"]]
    if "file" in claim and (values := load_json(root / claim["file"], "dvc repro")):
        key = claim["key"]
        ends = [three(values[end]) for end in (f"{key}_low", f"{key}_high") if end in values]
        return [(key.replace("_", " "), three(values[key]) + (f" [{', '.join(ends)}]" if ends else ""))]
    return []
