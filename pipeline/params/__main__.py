"""Stage params: params.yaml checked whole and laid out, one small file for each entry and concern.

Reads params.yaml and the code. Writes out/params/<entry>/{data,train,export,check,explain}.json
(the resolved recipe, and the digest of architecture and weights), out/claims/<study>.json (the same
for a study) and out/code/<stage>.txt (the digest of a stage's code).
The stages of an entry depend on these files alone: a change elsewhere in params.yaml or models/
reruns nothing of it. For an entry that params.yaml no longer names it prints the command that
removes its files.
Fails on any mistake in params.yaml, with the place, the choices and the cure.

    python -m pipeline.params
    python -m pipeline.params --names   prints recipes whose files are here, with their start
    python -m pipeline.params --docs    writes docs/params.schema.json and docs/params.md
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from pipeline.core import digest as code
from pipeline.core.errors import ParamsError
from pipeline.core.stage import note, run, stage_line
from pipeline.params.load import (
    CLAIMS,
    CODE,
    FILE,
    OUT,
    SCRATCH,
    Params,
    keep_record,
    lay_out,
    lay_out_study,
    load,
    missing_files,
    study_recipes,
)


def write_docs() -> None:
    """Write the JSON schema of params.yaml and the page of its keys."""
    from pipeline.params import reference

    schema = json.dumps(reference.json_schema(), indent=2, ensure_ascii=False)
    Path("docs/params.schema.json").write_text(schema + "\n", encoding="utf-8")
    Path("docs/params.md").write_text(reference.reference(), encoding="utf-8")


def main() -> None:
    if sys.argv[1:] == ["--docs"]:
        return write_docs()
    params = load()
    if "line_studies" not in params.raw and Path("dvc.yaml").exists():
        raise ParamsError(
            f"{FILE.name} line_studies: missing; dvc.yaml reads it, so add `line_studies: []` for"
            " none"
        )
    if sys.argv[1:] == ["--names"]:
        absent = [name for name, recipe in params.models.items() if missing_files(recipe)]
        if absent:
            print(
                f"left out: {', '.join(absent)}: not below DATA_ROOT or TORCH_HOME", file=sys.stderr
            )
        whole = {
            name: recipe.needs or SCRATCH
            for name, recipe in params.models.items()
            if name not in absent
        }
        print("\n".join(f"{name}={start}" for name, start in whole.items()))
        return
    with stage_line("params") as summarize:
        write_files(params)
        tell_missing_files(params)
        summarize(f"entries: {len(params.line)}, studies: {len(params.line_studies)}")


def tell_missing_files(params: Params) -> None:
    """Name the entries and studies whose own stages will fail for want of data or weights."""
    made = {name: [params.models[name]] for name in params.line}
    made |= {name: [*study_recipes(params, name).values()] for name in params.line_studies}
    for name, recipes in made.items():
        if missing := dict.fromkeys(text for recipe in recipes for text in missing_files(recipe)):
            cure = "put it there, or take the name out of the line, which stops at it"
            note(f"{name} cannot be made: {', and '.join(missing)}; {cure}")


def write_files(params: Params) -> None:
    """Write the files of the stage, and remove those of an earlier params.yaml."""
    keep_record(params)
    files = {
        OUT / name / f"{part}.json": x
        for name in params.line
        for part, x in lay_out(params, name).items()
    }
    files |= {CLAIMS / f"{name}.json": lay_out_study(params, name) for name in params.line_studies}
    files |= {CODE / f"{stage}.txt": code.describe_stage(stage) for stage in code.stage_names()}
    for folder in (OUT, CLAIMS, CODE):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    nothing = Path("out", SCRATCH, "train", "nothing.txt")
    nothing.parent.mkdir(parents=True, exist_ok=True)
    nothing.write_text(
        "Entries of `line:` that start from scratch depend on this folder, which never changes.\n"
    )
    for path, content in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


if __name__ == "__main__":
    run(main)
