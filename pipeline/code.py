"""Which of our files a stage's numbers depend on, and their digest: what reruns when a module changes."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Only entries with a head depend on these: circumstances in params.
HEADED = ("features", "fitted", "heads", "joined", "tuning")
# What these decide lies in out/params and out/claims, which stages depend on, or changes no number (stage, code, warm).
APART = {f"pipeline.{module}" for module in ("stage", "params", "schema", "recipe", "code", "warm", *HEADED)}


def modules_of(stage: str) -> list[Path]:
    """Return the files of ours that a stage's numbers depend on: what it imports, and what that imports, and so on.

    Of another stage's module, which it may use too, only what that imports of serve/ and models/: what the other stage
    makes is a dependency itself. A study calls the stages, so it depends on all of theirs.
    """
    others = {f"pipeline.{other}" for other in stages()} - {f"pipeline.{stage}"}

    def follows(importer: str, name: str) -> bool:
        through = stage == "study" or importer not in others or not name.startswith("pipeline.")
        return through and name not in APART

    return reached(f"pipeline.{stage}", follows)


def of_architecture(arch: str) -> list[Path]:
    """Return the files that an architecture is made of: its own, and those of models/ that it imports."""
    return reached(f"models.{arch}")


def reached(start: str, follows: Callable[[str, str], bool] = lambda importer, name: True) -> list[Path]:
    """Return the files of a module of ours and of all that it imports, where follows(importer, imported) says so."""
    found: dict[str, Path] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        path = file_of(name)
        if path is None or name in found:
            continue
        found[name] = path
        waiting += [other for other in imported(path) if follows(name, other)]
    packages = {name.rpartition(".")[0] for name in found} - {""}  # imported first; what they import lazily is not run
    return sorted({*found.values(), *(path for path in map(file_of, packages) if path)})


def file_of(name: str) -> Path | None:
    """Return the file of a module or package by its dotted name; None where that is an attribute."""
    module = Path(*name.split("."))
    return next((path for path in (module.with_suffix(".py"), module / "__init__.py") if path.exists()), None)


def imported(path: Path) -> list[str]:
    """Return the modules of ours that a file imports, anywhere in it: of `from a import b` a.b, or a if b is no module.

    What is imported for the type checker alone is never run.
    """
    names: list[str] = []
    for node in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names += [name if file_of(name) else node.module for name in inner]
    return [name for name in names if name.split(".")[0] in ("pipeline", "serve", "models")]


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node below this one, without the blocks under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from statements(child)


def stages() -> list[str]:
    """Return the modules that are stages: their docstrings say so."""
    paths = sorted(Path("pipeline").glob("*.py"))
    return [path.stem for path in paths if path.read_text(encoding="utf-8").startswith('"""Stage ')]


def lay_out(stage: str) -> dict[str, Any]:
    """Return what out/code/<stage>.txt holds."""
    found = modules_of(stage)
    return {"modules": [str(path) for path in found], "digest": digest(*found)}


def digest(*paths: Path) -> str:
    """Return one sha256 over the content of the named files."""
    return hashlib.sha256(b"".join(hashlib.sha256(content(path)).digest() for path in paths)).hexdigest()


def content(path: Path) -> bytes:
    """Return a file's bytes; of Python its syntax tree: comments, docstrings and line breaks rerun nothing."""
    return path.read_bytes() if path.suffix != ".py" else repr(plain(ast.parse(path.read_bytes()))).encode()


def plain(node: Any) -> Any:
    """Return a syntax tree as nested tuples, without docstrings; without empty fields, as newer Pythons have more."""
    if isinstance(node, list):
        return tuple(plain(part) for part in node if not is_docstring(part))
    if not isinstance(node, ast.AST):
        return node
    fields = ((name, plain(value)) for name, value in ast.iter_fields(node) if value is not None and value != [])
    return (type(node).__name__, *fields)


def is_docstring(node: Any) -> bool:
    """Return whether a statement is a string and nothing else."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
