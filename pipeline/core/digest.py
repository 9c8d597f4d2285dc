"""Digests of our code: a stage runs again when a file that its numbers depend on has changed."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Only entries with a head depend on these: stage params writes their digest into these entries'
# files.
HEAD_MODULES = (
    "pipeline.export.head_graph",
    "pipeline.network.features",
    "pipeline.train.finetune",
    "pipeline.train.head_training",
    "pipeline.train.heads",
    "pipeline.train.head_files",
)
# These change no number, or what they decide is written to out/params and out/claims, on which
# stages depend.
IGNORED_MODULES = (
    "pipeline.core.digest",
    "pipeline.core.errors",
    "pipeline.core.files",
    "pipeline.line.fork_server",
    "pipeline.core.paths",
    "pipeline.core.stage",
    "pipeline.params.load",
    "pipeline.params.network_options",
    "pipeline.params.recipe",
    "pipeline.params.schema",
    "pipeline.params.validation_errors",
    "pipeline.params.working_recipe",
    *HEAD_MODULES,
)


def stage_names() -> list[str]:
    """Return the stages, sorted: packages of pipeline whose `__main__.py` says that it is one."""
    files = Path("pipeline").glob("*/__main__.py")
    return sorted(
        path.parent.name
        for path in files
        if path.read_text(encoding="utf-8").startswith(f'"""Stage {path.parent.name}: ')
    )


def describe_stage(stage: str) -> dict[str, Any]:
    """Return the content of out/code/<stage>.txt: the stage's files and their digest."""
    files = stage_files(stage)
    return {"modules": [str(path) for path in files], "digest": hash_files(*files)}


def stage_files(stage: str) -> list[Path]:
    """Return the files of ours that a stage's numbers depend on, following imports of imports."""
    return imported_files(f"pipeline.{stage}.__main__", lambda name: name not in IGNORED_MODULES)


def architecture_files(arch: str) -> list[Path]:
    """Return the file of an architecture and the files of models/ that it imports."""
    return imported_files(f"models.{arch}")


def imported_files(start: str, follow: Callable[[str], bool] = lambda name: True) -> list[Path]:
    """Return the files of module `start` and of all modules of ours that it imports, sorted.

    An import is followed where `follow(module name)` is true. A module's packages count as imported
    by it.
    """
    files: dict[str, Path] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        path = module_file(name)
        if path is None or name in files:
            continue
        files[name] = path
        waiting += [other for other in imported_modules(path) if follow(other)]
    parts = [name.split(".") for name in files]
    packages = {".".join(part[:depth]) for part in parts for depth in range(1, len(part))}
    return sorted({*files.values(), *(path for path in map(module_file, packages) if path)})


def module_file(name: str) -> Path | None:
    """Return the file of a module or package by its dotted name; None for an attribute."""
    module = Path("serve" if name.split(".")[0] == "convline" else "", *name.split("."))
    files = module.with_suffix(".py"), module / "__init__.py"
    return next((path for path in files if path.exists()), None)


def imported_modules(path: Path) -> list[str]:
    """Return the modules of ours that a file imports, inside functions too.

    `from a import b` imports a.b if that is a module, otherwise a. Imports for the type checker do
    not count.
    """
    return [
        inner if inner and module_file(inner) else name
        for name, inner in imported_names(path.read_bytes())
    ]


# Both readers of source are cached by its content: a study asks for the digest of each run, and the
# stages share most of their files, which take .4 s to parse.
@functools.cache
def imported_names(source: bytes) -> list[tuple[str, str]]:
    """Return (a, a.b) of `from a import b`, and (a, "") of `import a`, of modules of ours."""
    names: list[tuple[str, str]] = []
    for node in runtime_nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [(node.module, f"{node.module}.{alias.name}") for alias in node.names]
    ours = ("pipeline", "convline", "models")
    return [(name, inner) for name, inner in names if name.split(".")[0] in ours]


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below this one, without blocks under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        condition = child.test if isinstance(child, ast.If) else None
        if isinstance(condition, ast.Name) and condition.id == "TYPE_CHECKING":
            continue
        yield child
        yield from runtime_nodes(child)


def hash_files(*paths: Path) -> str:
    """Return one SHA-256 over the content of the files, in the given order."""
    hashes = [hashlib.sha256(file_content(path)).digest() for path in paths]
    return hashlib.sha256(b"".join(hashes)).hexdigest()


def hash_values(*values: Any) -> str:
    """Return 16 hexadecimal digits of the SHA-256 over values that JSON can hold."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_content(path: Path) -> bytes:
    """Return a file's bytes; for Python its syntax tree, without comments and layout."""
    content = path.read_bytes()
    return content if path.suffix != ".py" else tree_content(content)


@functools.cache
def tree_content(source: bytes) -> bytes:
    """Return the syntax tree of Python source, as bytes."""
    return repr(tree_tuple(ast.parse(source))).encode()


def tree_tuple(node: Any) -> Any:
    """Return a syntax tree as nested tuples, without docstrings.

    Empty fields are left out: newer versions of Python have more of them.
    """
    if isinstance(node, list):
        return tuple(tree_tuple(part) for part in node if not is_docstring(part))
    if not isinstance(node, ast.AST):
        return node
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
    return (type(node).__name__, *((name, tree_tuple(value)) for name, value in fields))


def is_docstring(node: Any) -> bool:
    """Return whether a statement is a string and nothing else."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
