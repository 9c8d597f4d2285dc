"""Which of our files a stage's numbers depend on, and their digest: what reruns when a module changes."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
from typing import Any

HEADED = ("features", "heads", "joined", "tuning")  # only entries with a head depend on them: circumstances in params
# What these decide lies in out/params and out/claims, or changes no number (code, warm).
APART = {f"pipeline.{module}" for module in ("stage", "params", "schema", "recipe", "code", "warm", *HEADED)}


def modules_of(stage: str) -> list[Path]:
    """Return the files of ours that a stage's numbers depend on: what it imports, and what that imports, and so on.

    Not through other stages: what they make is a dependency itself. A study calls them, so it depends on all of theirs.
    """
    others = {f"pipeline.{other}" for other in stages()}
    found: dict[str, Path] = {}
    waiting = [f"pipeline.{stage}"]
    while waiting:
        name = waiting.pop()
        path = next(
            (
                p
                for p in (Path(*name.split(".")).with_suffix(".py"), Path(*name.split("."), "__init__.py"))
                if p.exists()
            ),
            None,
        )
        if path is None or name in found or name in APART:
            continue
        found[name] = path
        if name not in others or stage in ("study", name.removeprefix("pipeline.")):
            waiting += imported(path)
    return sorted(found.values())


def imported(path: Path) -> list[str]:
    """Return every name that a file imports, as a module's: of `from a import b` both a and a.b."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.split(".")[0] in ("pipeline", "serve", "models")]


def stages() -> list[str]:
    """Return the modules that are stages: their docstrings say so."""
    paths = sorted(Path("pipeline").glob("*.py"))
    return [path.stem for path in paths if path.read_text(encoding="utf-8").startswith('"""Stage ')]


def lay_out(stage: str) -> dict[str, Any]:
    """Return what out/code/<stage>.txt holds."""
    found = modules_of(stage)
    return {"modules": [str(path) for path in found], "digest": digest(*found)}


def digest(*paths: Path) -> str:
    """Return one sha256 over the named files' contents."""
    return hashlib.sha256(b"".join(hashlib.sha256(p.read_bytes()).digest() for p in paths)).hexdigest()
