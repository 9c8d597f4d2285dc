"""Every exception of ours reaches the parent of a worker process as it was raised."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VALUES = {"str": "what went wrong", "int": 7, "bool": True, "dict[str, str]": {".a.b": "no"}}


def exceptions() -> list[type[Exception]]:
    """Return the exceptions that the modules of ours define, wherever they are."""
    found = []
    for folder, root in (("convline", "serve"), ("pipeline", ""), ("models", "")):
        for path in sorted((ROOT / root / folder).rglob("*.py")):
            names = [
                node.name
                for node in ast.parse(path.read_text()).body
                if isinstance(node, ast.ClassDef)
                # One by the name of its base: the other modules are not imported for this.
                and any(ast.unparse(b).endswith(("Error", "Exception")) for b in node.bases)
            ]
            if names:
                module = ".".join(path.relative_to(ROOT / root).with_suffix("").parts)
                found += [getattr(importlib.import_module(module), name) for name in names]
    return found


def made(kind: type[Exception]) -> Exception:
    """Return an exception with a value for each argument of its constructor."""
    if not inspect.isfunction(kind.__init__):  # Python's own
        return kind("what went wrong")
    own = inspect.signature(kind).parameters.values()
    return kind(*(VALUES[getattr(p.annotation, "__name__", p.annotation)] for p in own))


@pytest.mark.parametrize("kind", exceptions(), ids=lambda kind: kind.__name__)
def test_an_exception_survives_pickling(kind: type[Exception]) -> None:
    """Its class, its text and its attributes."""
    error = made(kind)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (kind, str(error), vars(error))


def test_all_kinds_are_found() -> None:
    """Of serving and of the line, some of which have a constructor of their own."""
    names = {kind.__name__ for kind in exceptions()}
    assert {"InputError", "TooManyFieldsError", "BlockError", "StageError"} <= names
