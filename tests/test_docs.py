"""The pages of docs/: their links lead somewhere, and every set and weight file of params.yaml is listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import schema

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Within the repository: files and headings."""
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        headings = re.findall(r"^#+ (.*)", found.read_text(), re.M) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings], target


def test_every_data_set_and_weight_file_is_listed_with_its_licence() -> None:
    rows = [line for line in (ROOT / "docs" / "data.md").read_text().splitlines() if line.startswith("|")]
    for name, spec in PARAMS["data"].items():
        (row,) = [row for row in rows if f"`{name}`" in row.split("|")[1]]
        licence = spec.get("licence") or schema.SOURCES[spec["source"]]["licence"].default
        assert row.split("|")[4].strip() == licence, name
    weights = re.findall(r"weights: \{file: (\S+), licence: ([^}]+)\}", (ROOT / "params.yaml").read_text())
    for file, licence in weights:
        assert any(f"`{file}`" in row and f"| {licence} |" in row for row in rows), file
