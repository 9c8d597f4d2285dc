"""Which packages of `pipeline` may import which; no modules import each other in a circle."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Each package, and the packages that it may import besides itself.
MAY_IMPORT = {
    "core": set[str](),
    "plots": set[str](),
    "params": {"core"},
    "line": {"core", "params"},
    "data": {"core", "params"},
    "evaluate": {"core", "data"},
    "network": {"core", "data", "params"},
    "train": {"core", "data", "network", "params"},
    "export": {"core", "data", "network", "params", "train"},
    "check": {"core", "data", "evaluate", "export", "params"},
    "explain": {"core", "data", "network", "params", "plots", "train"},
    "study": {"core", "data", "evaluate", "network", "params", "plots", "train"},
    "package": {"core"},
    "wheel": {"core"},
    "infer": {"core", "data", "params"},
    "report": {"core", "params", "plots"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in (ROOT / "pipeline").rglob("*.py")}


def imports(module: str) -> set[str]:
    """Return the modules of pipeline that one imports, also in functions and for type checking."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names |= {name if name in MODULES else node.module for name in inner}
    return (names & MODULES.keys()) - {module}


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_import_arrows(package: str) -> None:
    allowed = {package} | MAY_IMPORT[package]
    for module in MODULES:
        if module.split(".")[1:2] == [package]:
            imported = {name.split(".")[1] for name in imports(module)}
            assert imported <= allowed, module


def test_every_package_has_its_arrows() -> None:
    assert {name.split(".")[1] for name in MODULES if "." in name} == {*MAY_IMPORT}


def test_no_circles() -> None:
    """Oracle: a topological order of all modules exists."""
    graph = {module: imports(module) for module in MODULES}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(graph)
