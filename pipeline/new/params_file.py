"""Insert an entry into params.yaml: new lines, and every old line as it is.

The text is inserted, not written anew by a YAML library, which would lay the file out afresh. The
result is read back: it must be the old content and the entry, and it must be a valid params.yaml.
"""

from __future__ import annotations

import copy
import io
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.errors import ParamsError, StageError
from pipeline.core.paths import located
from pipeline.params import load as params
from pipeline.params.schema import NAME_PATTERN, RESERVED
from pipeline.params.working_recipe import flow


@dataclass(frozen=True)
class Entry:
    """What is written into params.yaml, and what the user is told about it.

    `data_set` is the block under `data:`; None where the recipe names a dataset that is there.
    `seen` describes the data, one fact a line; `why` is the reason for the recipe, one sentence;
    `predict` is a command that serves a prediction.
    """

    name: str
    recipe: dict[str, Any]
    data_set: dict[str, Any] | None
    seen: list[str]
    why: str
    predict: str

    @property
    def sections(self) -> dict[str, Any]:
        """The entry's value in each section of params.yaml, in the order in which they are read."""
        sets = {} if self.data_set is None else {"data": self.data_set}
        return {"line": self.recipe.get("needs", params.SCRATCH)} | sets | {"models": self.recipe}


def require_free_name(name: str, taken: params.Params) -> None:
    """Raise StageError for a name that is not allowed, reserved, or in params.yaml already."""
    if not re.fullmatch(NAME_PATTERN, name):
        better = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        cure = f"use {better!r}" if better else "choose one such as 'pets'"
        what = "expected lower-case letters, digits and single hyphens"
        raise StageError(f"new: {what} as the name, got {name!r}; {cure}")
    if name in RESERVED:
        raise StageError(f"new: the name {name!r} is reserved; use 'my-{name}'")
    for section, names in (("models", taken.models), ("data", taken.sets)):
        if name in names:
            free = next(f"{name}-{k}" for k in range(2, 10**6) if f"{name}-{k}" not in names)
            cure = f"choose another, such as {free!r}, or remove it from params.yaml first"
            raise StageError(f"new: params.yaml has {section}.{name} already; {cure}")


def path_text(path: Path) -> str:
    """Return what `path:` of a dataset says: a path that finds the same file on this machine.

    It is relative to the repository or to DATA_ROOT where the path lies below them, so that it
    holds on another machine, too; otherwise absolute.
    """
    whole = Path(require_utf8(os.path.abspath(path)))
    for root in (Path.cwd(), Path(os.environ.get("DATA_ROOT", "/nowhere")).expanduser().absolute()):
        if whole.is_relative_to(root) and whole != root:
            text = str(whole.relative_to(root))
            if located(text).absolute() == whole:
                return text
    return str(whole)


def require_utf8(name: str) -> str:
    """Return the name; raise StageError where its bytes on disk are no UTF-8, as a file must be."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise StageError(f"new: expected a name in UTF-8, got {name!r}; rename it") from None
    return name


def preview(entry: Entry) -> str:
    """Return the lines that `write` inserts, under the names of their sections."""
    return "\n".join(f"{key}:\n{block(entry, key, '  ')}" for key in entry.sections)


def write(entry: Entry, path: Path = params.FILE) -> None:
    """Insert the entry into params.yaml and replace the file, if the result is valid."""
    with path.open(newline="", encoding="utf-8") as file:
        old = file.read()
    new = insert(old, entry)
    with tempfile.TemporaryDirectory(dir=path.resolve().parent, prefix=".new-") as folder:
        part = Path(folder, path.name)
        part.write_text(new, encoding="utf-8", newline="")
        require_nothing_else_changed(path, part, entry)
        params.load(part)
        part.chmod(path.stat().st_mode)
        os.replace(part, path.resolve())


def insert(text: str, entry: Entry) -> str:
    """Return the text of params.yaml with the entry at the end of each of its sections."""
    end = "\r\n" if "\r\n" in text else "\n"
    lines = text.split(end)
    places = find_ends(text, entry.sections)
    for key, (place, indent) in sorted(places.items(), key=lambda item: -item[1][0]):
        space = [""] if key == "models" else []  # recipes are paragraphs
        lines[place:place] = space + block(entry, key, indent).split("\n")
    return end.join(lines)


def find_ends(text: str, keys: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Return for each section the number of the line after its last one, and its indentation.

    Blank lines before the next section, and its comment, do not belong to a section.
    """
    from ruamel.yaml import YAML

    root = YAML().compose(io.StringIO(text))
    pairs = {key.value: value for key, value in root.value}
    starts = [key.start_mark.line for key, _ in root.value]
    lines, places = text.split("\n"), {}
    for key in keys:
        section = pairs.get(key)
        if section is None or section.id != "mapping" or section.flow_style or not section.value:
            what = f"expected a block of indented lines under `{key}:`"
            raise ParamsError(f"params.yaml {key}: {what}; write it so, and try again")
        first = section.value[0][0].start_mark
        end = next((start for start in starts if start > first.line), len(lines))
        while not lines[end - 1].startswith(" " * first.column) or not lines[end - 1].strip():
            end -= 1
        places[key] = end, " " * first.column
    return places


def block(entry: Entry, key: str, indent: str) -> str:
    """Return the lines of the entry in one section: a recipe has a line for each of its blocks."""
    value = entry.sections[key]
    if key != "models":
        return indent + flow({entry.name: value})[1:-1]
    parts = [f"{indent}{indent}{flow({part: options})[1:-1]}" for part, options in value.items()]
    return "\n".join([f"{indent}{entry.name}: # {entry.why}", *parts])


def require_nothing_else_changed(old: Path, new: Path, entry: Entry) -> None:
    """Raise StageError unless the new file is the old one and the entry."""
    expected = copy.deepcopy(params.read_yaml(old))
    for key, value in entry.sections.items():
        expected[key][entry.name] = value
    if params.read_yaml(new) != expected:
        lines = preview(entry)
        raise StageError(f"new: params.yaml cannot be extended; add these lines to it:\n{lines}")
