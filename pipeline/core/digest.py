"""Which of our files a stage's numbers depend on, and their digest: what reruns when a module changes."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Only the entries with a head depend on these, which is why stage params adds their digest to these entries' files.
HEAD_MODULES = (
    "pipeline.export.head_graph",
    "pipeline.network.features",
    "pipeline.train.finetune",
    "pipeline.train.heads",
    "pipeline.train.saved_heads",
)
# What these decide lies in out/params and out/claims, on which stages depend, or changes no number.
IGNORED_MODULES = (
    "pipeline.core.digest",
    "pipeline.core.errors",
    "pipeline.core.files",
    "pipeline.core.fork_server",
    "pipeline.core.paths",
    "pipeline.core.stage",
    "pipeline.params.limits",
    "pipeline.params.load",
    "pipeline.params.recipe",
    "pipeline.params.schema",
    *HEAD_MODULES,
)


def stage_files(stage: str) -> list[Path]:
    """Return the files of ours that a stage's numbers depend on: what it imports, and what that imports, and so on."""
    return imported_files(f"pipeline.{stage}.__main__", lambda name: name not in IGNORED_MODULES)


def architecture_files(arch: str) -> list[Path]:
    """Return the files that an architecture is made of: its own, and those of models/ that it imports."""
    return imported_files(f"models.{arch}")


def imported_files(start: str, follows: Callable[[str], bool] = lambda name: True) -> list[Path]:
    """Return the files of a module of ours and of all that it imports, where `follows` says so of its name."""
    found: dict[str, Path] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        path = module_file(name)
        if path is None or name in found:
            continue
        found[name] = path
        waiting += [other for other in imported_modules(path) if follows(other)]
    parts = [name.split(".") for name in found]
    # A module's packages are imported before it; what they import lazily is not run.
    packages = {".".join(part[:depth]) for part in parts for depth in range(1, len(part))}
    return sorted({*found.values(), *(path for path in map(module_file, packages) if path)})


def module_file(name: str) -> Path | None:
    """Return the file of a module or package by its dotted name; None where that is an attribute."""
    module = Path("serve" if name.split(".")[0] == "convline" else "", *name.split("."))
    return next(
        (path for path in (module.with_suffix(".py"), module / "__init__.py") if path.exists()),
        None,
    )


def imported_modules(path: Path) -> list[str]:
    """Return the modules of ours that a file imports, anywhere in it: of `from a import b` a.b, or a if b is no module.

    What is imported for the type checker alone is never run.
    """
    names: list[str] = []
    for node in runtime_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names += [name if module_file(name) else node.module for name in inner]
    return [name for name in names if name.split(".")[0] in ("pipeline", "convline", "models")]


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node below this one, without the blocks under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if (
            isinstance(child, ast.If)
            and isinstance(child.test, ast.Name)
            and child.test.id == "TYPE_CHECKING"
        ):
            continue
        yield child
        yield from runtime_nodes(child)


def stage_names() -> list[str]:
    """Return the packages that are stages: those that run, `python -m pipeline.<stage>`."""
    return sorted(path.parent.name for path in Path("pipeline").glob("*/__main__.py"))


def describe_stage(stage: str) -> dict[str, Any]:
    """Return what out/code/<stage>.txt holds."""
    found = stage_files(stage)
    return {"modules": [str(path) for path in found], "digest": hash_files(*found)}


def hash_files(*paths: Path) -> str:
    """Return one sha256 over the content of the named files."""
    return hashlib.sha256(
        b"".join(hashlib.sha256(file_content(path)).digest() for path in paths)
    ).hexdigest()


def file_content(path: Path) -> bytes:
    """Return a file's bytes; of Python its syntax tree: comments, docstrings and line breaks rerun nothing."""
    return (
        path.read_bytes()
        if path.suffix != ".py"
        else repr(tree_tuple(ast.parse(path.read_bytes()))).encode()
    )


def tree_tuple(node: Any) -> Any:
    """Return a syntax tree as nested tuples, without docstrings; without empty fields, as newer Pythons have more."""
    if isinstance(node, list):
        return tuple(tree_tuple(part) for part in node if not is_docstring(part))
    if not isinstance(node, ast.AST):
        return node
    fields = (
        (name, tree_tuple(value))
        for name, value in ast.iter_fields(node)
        if value is not None and value != []
    )
    return (type(node).__name__, *fields)


def is_docstring(node: Any) -> bool:
    """Return whether a statement is a string and nothing else."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
