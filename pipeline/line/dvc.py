"""`dvc`, which spends less on each stage of a long line.

DVC reads dvc.yaml, params.yaml and dvc.lock anew for each target, and parses and rewrites the whole
of dvc.lock after each stage. Here they are read once for all targets, and a stage's part of
dvc.lock is written into the text. The content is DVC's own, and so are the bytes, but for text of
several lines and for None, which is written as null.

    python -m pipeline.line.dvc repro ...
"""

from __future__ import annotations

import functools
import io
import os
import re
import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dvc import dvcfile, lock
from dvc.cli import main
from dvc.repo import reproduce
from dvc.stage import serialize
from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter

RETRY_S = 0.02  # until a lock that another command holds is tried again; DVC waits .5 s
TRIES = 6  # DVC's own, after which it gives up without --wait-for-lock
HEAD = "schema: '2.0'\nstages:\n"
KEY = re.compile(r"  [A-Za-z_][\w@.-]*:\n", re.ASCII)  # of a stage whose name needs no quotes
# No data sets, and no names in quotes or comments beside the names: they are not found as keys.
STAGES_ALONE = re.compile(rf"{re.escape(HEAD)}({KEY.pattern}|    .*\n|\n)*", re.ASCII)
NEXT_KEY = re.compile(r"^  \S", re.M)


class Representer(SafeRepresenter):
    """Writes DVC's ordered mappings as plain ones."""


Representer.add_representer(OrderedDict, SafeRepresenter.represent_dict)

collect_stages, dump_stages = reproduce.collect_stages, dvcfile.Lockfile.dump_stages


def collect_at_once(repo: Any, targets: Iterable[str], **how: Any) -> list[Any]:
    """Return the stages of all targets, as DVC's own function, from files that are read once."""
    read_file = dvcfile.load_file
    dvcfile.load_file = functools.cache(read_file)
    try:
        return list(collect_stages(repo, targets, **how))
    finally:
        dvcfile.load_file = read_file


def dump_parts(self: dvcfile.Lockfile, stages: Sequence[Any], **how: Any) -> None:
    """Write the stages into a lock file, as DVC's own method, which writes what is unusual."""
    path = Path(self.path)
    before = text = path.read_text(encoding="utf-8") if path.exists() else HEAD
    parts = [part_text(serialize.to_lockfile(stage, **how)) for stage in stages]
    if not STAGES_ALONE.fullmatch(text) or not all(map(KEY.match, parts)):
        dump_stages(self, stages, **how)
        return
    for part in parts:
        text = replace_part(text, part)
    if text != before:
        new = path.with_name(f"{path.name}.part")
        new.write_text(text, encoding="utf-8")
        os.replace(new, path)  # a command that ends here leaves no half of a file
        self.repo.scm_context.track_file(self.relpath)


def part_text(stage: Any) -> str:
    """Return the lines of a stage in a lock file; stage: {name: content}, keys in order."""
    yaml = YAML(typ="safe")
    yaml.Representer = Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # it is declared None
    stream = io.StringIO()
    yaml.dump({"stages": stage}, stream)
    return stream.getvalue().removeprefix("stages:\n")


def replace_part(text: str, part: str) -> str:
    """Return the text of a lock file with the lines of a stage, new ones at the end."""
    key = part[: part.index("\n") + 1]
    start = text.find("\n" + key) + 1
    if not start:
        return text + part
    end = NEXT_KEY.search(text, start + len(key))
    return text[:start] + part + (text[end.start() :] if end else "")


if __name__ == "__main__":
    if "--wait-for-lock" in sys.argv:
        lock.DEFAULT_TIMEOUT = TRIES * RETRY_S
    reproduce.collect_stages = collect_at_once
    dvcfile.Lockfile.dump_stages = dump_parts
    sys.exit(main(sys.argv[1:]))
