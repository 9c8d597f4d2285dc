"""params.yaml as a whole: every recipe, dataset and study checked and resolved."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pipeline.core import digest as code
from pipeline.core import paths
from pipeline.core.errors import ParamsError, hint
from pipeline.core.stage import note
from pipeline.params import schema
from pipeline.params.recipe import Sets, built_on, check_recipe, laid_full, overlay, resolve
from pipeline.params.schema import EntryRecipe, Layer, Recipe, Study
from pipeline.params.validation_errors import BlockError, check_block
from pipeline.params.working_recipe import describe_working_recipe

FILE = Path("params.yaml")
OUT = Path("out/params")
CLAIMS = Path("out/claims")
CODE = Path("out/code")
# Every entry that was ever laid out here, until what it made is gone.
RECORD = Path("out/entries.json")
SCRATCH = "scratch"  # what an entry's training starts from, if not from another entry


@dataclass(frozen=True)
class Params:
    """The checked params: `models` holds all recipes resolved for `size`, `raw` the file as it
    is.
    """

    size: str
    device: str
    deterministic: bool
    threads: int
    processes: int
    workers: int | Literal["auto"]
    line: list[str]
    line_studies: list[str]
    check: schema.Check
    explain: schema.Explain
    sets: Sets
    models: dict[str, EntryRecipe]
    studies: dict[str, Study]
    raw: dict[str, Any]


def load(path: Path = FILE) -> Params:
    """Return the checked params; raise ParamsError at a mistake, even in an unused recipe."""
    raw = read_yaml(path)
    try:
        check_aliases(raw)
        file = check_block(schema.File, raw, "")
        sets = {name: check_set(name, spec) for name, spec in file.data.items()}
        built: dict[str, Any] = {}
        models: dict[str, EntryRecipe] = {}
        for name, recipe in file.models.items():
            try:
                built[name] = built_on(name, file.models)
                models[name] = check_recipe(name, built[name], sets, file.size)
            except BlockError as error:
                working = describe_working_recipe(name, recipe, error.mistakes, sets)
                raise ParamsError(f"{error}{working}") from None
        check_names("line_studies", file.line_studies, file.studies)
        run_by = ("device", "deterministic", "threads", "processes", "workers")
        keys = ("size", *run_by, "line_studies")
        every = Params(
            **{key: getattr(file, key) for key in keys},
            line=check_line(file.line, models),
            check=file.check,
            explain=file.explain,
            sets=sets,
            models=models,
            studies=file.studies,
            raw=raw | {"models": built},
        )
        for name, study in file.studies.items():
            check_study(name, study, every)
    except ParamsError as error:
        raise ParamsError(f"{path.name} {str(error).lstrip('.')}") from None
    return every


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the file's mapping, read as DVC reads it (YAML 1.2)."""
    from ruamel.yaml import (
        YAML,
    )  # here: training on a bare GPU machine needs this module, not its parser
    from ruamel.yaml.error import YAMLError

    if not path.exists():
        raise ParamsError(
            f"{path.name}: not found in {Path.cwd()}; run the command in the repository's root"
        )
    try:
        content = YAML(typ="safe").load(path)
    except YAMLError as error:
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            if "\t" in line[: len(line) - len(line.lstrip())]:
                what = "expected spaces before the first word, got a tab character"
                raise ParamsError(f"{path.name} line {number}: {what}; indent by spaces") from None
        raise ParamsError(f"{path.name}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ParamsError(f"{path.name}: expected a mapping, got {type(content).__name__}")
    return content


def check_aliases(content: dict[str, Any]) -> None:
    """Refuse an alias of a mapping: `dvc exp run -S` would change it in both places or in none."""
    known: dict[int, str] = {}
    waiting: list[tuple[str, Any]] = [("", content)]
    while waiting:
        place, mapping = waiting.pop()
        if id(mapping) in known:
            what = (
                f"expected a mapping of its own, got an alias of {known[id(mapping)].lstrip('.')}"
            )
            cure = (
                f"write `{place.rpartition('.')[2]}: {{<<: *NAME}}`, whose keys `dvc exp run -S`"
                " changes here alone"
            )
            raise ParamsError(f"{place}: {what}; {cure}")
        known[id(mapping)] = place
        waiting += [
            (f"{place}.{key}", value)
            for key, value in reversed(mapping.items())
            if isinstance(value, dict)
        ]


def check_line(line: dict[str, str], models: dict[str, EntryRecipe]) -> list[str]:
    """Return the entries of `line:`, each of which must name what its training starts from."""
    check_names("line", list(line), models)
    for name, start in line.items():
        needs = models[name].needs
        if start != (needs or SCRATCH):
            what = (
                f"expected {needs or SCRATCH}, as models.{name}"
                f" {'needs' if needs else 'needs no other entry'}"
            )
            raise ParamsError(f"line.{name}: {what}, got {start!r}")
        if needs and needs not in line:
            raise ParamsError(
                f"line.{name}: needs {needs}, which is not in the line; add `{needs}: {SCRATCH}`"
            )
    return list(line)


def check_names(key: str, names: list[str], known: Mapping[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise ParamsError(f"{key}: nothing is named {name!r}; {hint(name, list(known))}")
    if len(set(names)) < len(names):
        raise ParamsError(f"{key}: a name stands twice in {names}; name each once")


def check_set(name: str, spec: Any) -> Any:
    """Return a data set's block, a member of schema.DataSet."""
    place = f"data.{name}"
    if not isinstance(spec, dict) or "source" not in spec:
        raise ParamsError(f"{place}.source: missing; choices: {', '.join(schema.SOURCES)}")
    source = str(spec["source"])
    if source not in schema.SOURCES:
        raise ParamsError(
            f"{place}.source: unknown source {source!r}; {hint(source, list(schema.SOURCES))}"
        )
    return check_block(schema.SOURCES[source], spec, place)


def check_study(name: str, study: Study, every: Params) -> None:
    """Resolve every setting of a study: a mistake in the last one is an error before training."""
    place = f"studies.{name}"
    if study.recipe not in every.models:
        known = list(every.models)
        raise ParamsError(
            f"{place}.recipe: no recipe {study.recipe!r}; {hint(study.recipe, known)}"
        )
    for line, joined in study.lines.items():
        check_names(f"{place}.lines.{line}", joined, study.settings)
    if study.factors:
        crossed = [", ".join(levels) for levels in itertools.product(*study.factors.values())]
        check_names(f"{place}.factors", crossed, study.settings)
    for setting, layer in study.settings.items():
        where = f"{place}.settings.{setting}"
        check_block(schema.Setting, layer, where)
        raw = lay_over(study.recipe, study.base, layer, every)
        if raw.get("full"):
            resolve(f"{where} (with its full block)", laid_full(raw), every.sets)
        recipe = resolve(where, raw, every.sets)
        if getattr(recipe.data, "layout", "array") == "shards":
            what = "expected array, as studies train on, got shards"
            raise ParamsError(f"{where}.data.layout: {what}")
        task = recipe.data.task
        kind = {"classification": "image", "forecasting": "series"}.get(task, task)
        fitting = [
            measure for measure, (takes, _) in schema.MEASURES.items() if takes in (kind, "any")
        ]
        for measure in study.measures:
            if measure not in fitting:
                raise ParamsError(
                    f"{place}.measures: {measure!r} is none for {kind} data;"
                    f" {hint(measure, fitting)}"
                )


def lay_over(name: str, base: Layer, setting: Layer, every: Params) -> Layer:
    """Return a study's recipe, unchecked: models.<name> without `full`, then `base`, then setting.

    The study's own `full:` blocks are in its `full`.
    """
    raw: Layer = {key: value for key, value in every.raw["models"][name].items() if key != "full"}
    for layer in (base, setting):
        raw = overlay(raw, layer)
        if "arch" in layer:
            raw["net"] = copy.deepcopy(
                layer.get("net", {})
            )  # another architecture's options would not fit
    return raw


E = TypeVar(
    "E", schema.DataPart, Recipe, schema.ExportRecipe, schema.CheckPart, schema.ExplainRecipe
)


def entry(name: str, kind: type[E]) -> E:
    """Return what stage params wrote for `name`, of its files those that `kind` is made of."""
    files = [OUT / name / f"{part}.json" for part in kind.FILES]
    if not all(file.exists() for file in files):
        raise ParamsError(
            f"{name}: no resolved recipe in {OUT}; put the name under `line:` and run `dvc repro"
            " params`"
        )
    parts = {key: value for file in files for key, value in json.loads(file.read_text()).items()}
    return kind.model_validate_json(json.dumps(parts))


def lay_out(params: Params, name: str) -> dict[str, dict[str, Any]]:
    """Return an entry's recipe in parts, each named after the first stage that depends on it."""
    recipe = in_environment(params, params.models[name])
    recipe = recipe.updated(size=params.size, processes=params.processes)
    if getattr(recipe.data, "layout", "array") != "array":  # else `workers` changes nothing
        recipe = recipe.updated(workers=params.workers)
    exported, explained = ("saliency", "streaming"), ("synthesis",)
    whole = recipe.model_dump(mode="json", exclude={"base"})
    later = {"data", *exported, *explained}
    check = params.check.model_dump(mode="json")
    return {
        "data": {"data": whole["data"]},
        "train": {key: value for key, value in whole.items() if key not in later},
        "export": (
            {key: whole[key] for key in exported}
            | {"check": {key: check[key] for key in schema.ExportCheck.model_fields}}
        ),
        "check": {"check": check},
        "explain": (
            {key: whole[key] for key in explained}
            | {"explain": params.explain.model_dump(mode="json")}
        ),
    }


def study_recipes(params: Params, name: str) -> dict[str, EntryRecipe]:
    """Return the recipes of a study's settings, without `full`, and those that they need."""
    study = params.studies[name]
    recipes = {
        setting: resolve(name, lay_over(study.recipe, study.base, layer, params), params.sets)
        for setting, layer in study.settings.items()
    }
    return recipes | {
        recipe.needs: params.models[recipe.needs] for recipe in recipes.values() if recipe.needs
    }


def lay_out_study(params: Params, name: str) -> dict[str, Any]:
    """Return all that a study's numbers depend on, but for the stages' own code."""
    study = params.studies[name]
    return {
        "study": study.model_dump(mode="json"),
        "kinds": {measure: schema.MEASURES[measure][1] for measure in study.measures},
        "recipes": {
            setting: in_environment(params, recipe).model_dump(mode="json")
            for setting, recipe in study_recipes(params, name).items()
        },
    }


R = TypeVar("R", bound=schema.Training)


def in_environment(params: Params, recipe: R) -> R:
    """Return the recipe with what its training depends on besides: device, threads and code.

    Weights that are not on this machine are left out: stage train, which needs them, says so.
    """
    files = code.architecture_files(recipe.arch)
    if recipe.head:  # here, not in dvc.yaml: a change reruns only the entries that have a head
        files += [path for path in map(code.module_file, code.HEAD_MODULES) if path]
    if recipe.weights and (path := paths.located(recipe.weights.file, "TORCH_HOME")).is_file():
        files.append(path)
    common = {key: getattr(params, key) for key in ("device", "deterministic", "threads")}
    return recipe.updated(**common, code=code.hash_files(*files))


def missing_files(recipe: Recipe) -> list[str]:
    """Return the data and the weights that a recipe names and that are not on this machine."""
    named = [(path, "DATA_ROOT")] if (path := getattr(recipe.data.spec, "path", None)) else []
    if recipe.weights and recipe.weights.file != "imagenet":
        named.append((recipe.weights.file, "TORCH_HOME"))
    return [
        f"{path} is not here nor below {paths.named_root(variable)}"
        for path, variable in named
        if not paths.located(path, variable).exists()
    ]


def leftovers(record: list[str], known: list[str]) -> list[Path]:
    """Return the folders of recorded entries that params.yaml no longer names."""
    gone = [name for name in record if name not in known]
    folders = (Path("results"), Path("out"), Path("out/dist"))
    return [folder / name for name in gone for folder in folders if (folder / name).exists()]


def keep_record(params: Params) -> None:
    """Add the line to the record of entries; print the command that removes what old ones left."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else []
    record += [
        path.name for path in sorted(OUT.glob("*/")) if path.name not in record
    ]  # of before there was a record
    left = leftovers(record, list(params.models))
    if left:
        note(f"left by entries that params.yaml no longer names: rm -r {' '.join(map(str, left))}")
    kept = {path.name for path in left}
    record = [name for name in record if name in params.models or name in kept]
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(
        json.dumps(record + [name for name in params.line if name not in record]) + "\n"
    )
