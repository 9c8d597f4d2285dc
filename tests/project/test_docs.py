"""docs/: links lead somewhere; every metric, dataset and weight file of params.yaml is listed."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.params import schema

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_the_docs_exist(page: Path) -> None:
    """Files and headings within the repository."""
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        headings = re.findall(r"^#+ (.*)", found.read_text(), re.M) if anchor else []
        assert not anchor or anchor in [
            re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings
        ], target


def test_every_data_set_and_weight_file_is_listed_with_its_licence() -> None:
    rows = [
        line
        for line in (ROOT / "docs" / "data.md").read_text().splitlines()
        if line.startswith("|")
    ]
    for name, spec in PARAMS["data"].items():
        (row,) = [row for row in rows if f"`{name}`" in row.split("|")[1]]
        licence = (
            spec.get("licence") or schema.SOURCES[spec["source"]].model_fields["licence"].default
        )
        assert row.split("|")[4].strip() == licence, name
    weights = re.findall(
        r"weights: \{file: (\S+), licence: ([^}]+)\}", (ROOT / "params.yaml").read_text()
    )
    for file, licence in weights:
        assert any(f"`{file}`" in row and f"| {licence} |" in row for row in rows), file


def test_the_table_of_metrics_is_complete_and_current() -> None:
    """The keys of results/*/metrics.json and the table of docs/dvc.md are the same; `..._low`
    stands for any key with that ending.
    """
    rows = re.findall(
        r"^\| (`.*?) \| (.+?) \| (.+?) \|$", (ROOT / "docs" / "dvc.md").read_text(), re.M
    )
    named = {
        name.replace("...", "*") for names, _, _ in rows for name in re.findall(r"`([^`]+)`", names)
    }
    files = list((ROOT / "results").glob("*/metrics.json"))
    found = {key for file in files for key in json.loads(file.read_text())}
    assert found, "results/ holds no metrics; run `dvc repro`"
    assert [key for key in sorted(found) if not any(fnmatch(key, name) for name in named)] == []
    assert [name for name in sorted(named) if not any(fnmatch(key, name) for key in found)] == []
