"""What the folders of `convline` may import: cli -> report, explain -> jobs -> images |
timeseries -> runtime -> model_file.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "serve" / "convline"

# Each folder or module, and the folders and modules that it may import besides itself.
MAY_IMPORT = {
    "colours": set[str](),
    "errors": set[str](),
    "fonts": set[str](),
    "terminal_text": set[str](),
    "model_file": {"errors"},
    "runtime": {"errors", "model_file"},
    "metrics": set[str](),
    "images": {"colours", "errors", "fonts", "model_file", "runtime", "terminal_text"},
    "timeseries": {"errors", "model_file", "runtime"},
    "loading": {"errors", "model_file", "runtime", "images", "timeseries"},
    "jobs": {"errors", "model_file", "runtime", "images", "timeseries", "loading", "terminal_text"},
    "explain": {"colours", "errors", "model_file", "runtime", "images", "jobs", "loading"},
    "report": {
        "colours",
        "errors",
        "fonts",
        "model_file",
        "runtime",
        "images",
        "timeseries",
        "loading",
        "jobs",
        "metrics",
        "terminal_text",
    },
    "__init__": {"errors", "model_file", "runtime", "images", "timeseries", "loading"},
}
MAY_IMPORT["cli"] = {*MAY_IMPORT} - {"__init__"}
# A forecast needs no image code, and a job on images none of forecasts.
MAY_NOT_IMPORT = {
    "jobs/series_job.py": {"images", "loading"},
    "jobs/image_job.py": {"timeseries"},
    "jobs/run.py": {"images", "timeseries", "loading"},
}


def imports(path: Path) -> set[str]:
    """Return the dotted names that a file imports: in functions and under TYPE_CHECKING as well."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def parts(path: Path) -> set[str]:
    """Return the folders and top-level modules of `convline` that a file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("convline.")}


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_import_arrows(part: str) -> None:
    files = sorted((PACKAGE / part).rglob("*.py")) or [PACKAGE / f"{part}.py"]
    for path in files:
        name = path.relative_to(PACKAGE).as_posix()
        allowed = {part} | MAY_IMPORT[part] - MAY_NOT_IMPORT.get(name, set())
        assert parts(path) <= allowed, name


def test_every_part_has_its_arrows() -> None:
    found = {
        path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")
    }
    assert found == {*MAY_IMPORT}


def test_only_the_command_line_imports_click() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] != "cli":
            assert not {name for name in imports(path) if name.split(".")[0] == "click"}, path
