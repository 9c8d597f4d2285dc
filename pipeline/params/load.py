"""params.yaml as a whole: every recipe, dataset and study checked and resolved."""

from __future__ import annotations

import copy
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core import digest as code
from pipeline.core import paths
from pipeline.core.errors import ParamsError, hint
from pipeline.params import schema
from pipeline.params.limits import EXPLAIN, EXPORTED, check_limits
from pipeline.params.recipe import RECIPE, SETTING, built_on, check_recipe, overlay, resolve
from pipeline.params.schema import Field, check_section

FILE = Path("params.yaml")


OUT = Path("out/params")


CLAIMS = Path("out/claims")


CODE = Path("out/code")


RECORD = Path(
    "out/entries.json"
)  # every entry that was ever laid out here, until what it made is gone


SCRATCH = "scratch"  # what an entry's training starts from, if not from another entry


TOP = {
    "size": Field(str, "small", choices=("small", "full")),
    "device": Field(str, "auto", choices=("auto", "cuda", "cpu")),
    "deterministic": Field(bool, True),
    "threads": Field(int, 1, least=1),
    "processes": Field(int, 1, least=1),
    "line": Field(dict),
    "line_studies": Field(list, [], item=str),
    "data": Field(dict),
    "check": Field(dict, {}),
    "explain": Field(dict, {}),
    "models": Field(dict),
    "studies": Field(dict, {}),
}


@dataclass(frozen=True)
class Params:
    """params.yaml, checked: `models` holds every recipe resolved for `size`, `raw` the file as it is."""

    size: str
    device: str
    deterministic: bool
    threads: int
    processes: int
    line: list[str]
    line_studies: list[str]
    check: dict[str, Any]
    explain: dict[str, Any]
    sets: dict[str, dict[str, Any]]
    models: dict[str, dict[str, Any]]
    studies: dict[str, dict[str, Any]]
    raw: dict[str, Any]


def load(path: Path = FILE) -> Params:
    """Return the checked params; raise `ParamsError` at the first mistake, be it in a recipe that nothing uses."""
    raw = read_yaml(path)
    try:
        check_aliases(raw)
        top = check_section("", raw, TOP)
        sets = {name: check_set(name, spec) for name, spec in top["data"].items()}
        built = {name: built_on(name, top["models"]) for name in top["models"]}
        raw = raw | {"models": built}
        models = {
            name: check_recipe(name, recipe, sets, top["size"]) for name, recipe in built.items()
        }
        fields = {
            key: top[key]
            for key in ("size", "device", "deterministic", "threads", "processes", "line_studies")
        }
        fields["line"] = check_line(top["line"], models)
        studies = {
            name: check_section(f"studies.{name}", study, schema.STUDY)
            for name, study in top["studies"].items()
        }
        check_names("line_studies", top["line_studies"], studies)
        check = check_limits(top["check"])
        explain = check_section("explain", top["explain"], EXPLAIN)
        every = Params(
            **fields,
            check=check,
            explain=explain,
            sets=sets,
            models=models,
            studies=studies,
            raw=raw,
        )
        for name, study in studies.items():
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
        raise ParamsError(f"{path.name}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ParamsError(f"{path.name}: expected a mapping, got {type(content).__name__}")
    return content


def check_aliases(content: dict[str, Any]) -> None:
    """Refuse a mapping that stands in two places: `dvc exp run -S` would change it in both, or in neither."""
    known: dict[int, str] = {}
    waiting: list[tuple[str, Any]] = [("", content)]
    while waiting:
        place, mapping = waiting.pop()
        if id(mapping) in known:
            what = (
                f"expected a mapping of its own, got an alias of {known[id(mapping)].lstrip('.')}"
            )
            cure = f"write `{place.rpartition('.')[2]}: {{<<: *NAME}}`, whose keys `dvc exp run -S` changes here alone"
            raise ParamsError(f"{place}: {what}; {cure}")
        known[id(mapping)] = place
        waiting += [
            (f"{place}.{key}", value)
            for key, value in reversed(mapping.items())
            if isinstance(value, dict)
        ]


def check_line(line: dict[Any, Any], models: dict[str, Any]) -> list[str]:
    """Return the entries of `line:`; each must say what its training starts from, for DVC to make that first."""
    check_names("line", list(line), models)
    for name, start in line.items():
        needs = models[name]["needs"]
        if start != (needs or SCRATCH):
            what = f"expected {needs or SCRATCH}, as models.{name} {'needs' if needs else 'needs no other entry'}"
            raise ParamsError(f"line.{name}: {what}, got {start!r}")
        if needs and needs not in line:
            raise ParamsError(
                f"line.{name}: needs {needs}, which is not in the line; add `{needs}: {SCRATCH}`"
            )
    return list(line)


def check_names(key: str, names: list[str], known: dict[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise ParamsError(f"{key}: nothing is named {name!r}; {hint(name, list(known))}")
    if len(set(names)) < len(names):
        raise ParamsError(f"{key}: a name stands twice in {names}; name each once")


def check_set(name: str, spec: Any) -> dict[str, Any]:
    place = f"data.{name}"
    if not isinstance(spec, dict) or "source" not in spec:
        raise ParamsError(f"{place}.source: missing; choices: {', '.join(schema.SOURCES)}")
    source = str(spec["source"])
    if source not in schema.SOURCES:
        raise ParamsError(
            f"{place}.source: unknown source {source!r}; {hint(source, list(schema.SOURCES))}"
        )
    spec = check_section(place, spec, {"source": Field(str), **schema.SOURCES[source]})
    if spec.get("camera"):
        spec["camera"] = check_section(f"{place}.camera", spec["camera"], schema.CAMERA)
    return spec


def check_study(name: str, study: dict[str, Any], every: Params) -> None:
    """Resolve every setting of a study, so that a mistake in the last one does not wait for hours."""
    place = f"studies.{name}"
    if study["recipe"] not in every.models:
        known = list(every.models)
        raise ParamsError(
            f"{place}.recipe: no recipe {study['recipe']!r}; {hint(study['recipe'], known)}"
        )
    for curve in study["curves"]:
        if curve not in schema.CURVES:
            raise ParamsError(
                f"{place}.curves: unknown curve {curve!r}; {hint(curve, list(schema.CURVES))}"
            )
    if not study["settings"]:
        raise ParamsError(f"{place}.settings: expected at least one, got {study['settings']!r}")
    for line, joined in study["lines"].items():
        check_names(f"{place}.lines.{line}", joined, study["settings"])
    for setting, layer in study["settings"].items():
        where = f"{place}.settings.{setting}"
        if not isinstance(setting, str):
            raise ParamsError(
                f"{where}: expected a name that is text, got {setting!r}; put it in quotes"
            )
        check_section(where, layer, SETTING | {"needs": RECIPE["needs"]})
        source = resolve(where, studied(study, layer, every), every.sets)["data"]["spec"]["source"]
        kind = "image" if source in schema.IMAGE_SOURCES else "series"
        fitting = [
            measure for measure, (takes, _) in schema.MEASURES.items() if takes in (kind, "any")
        ]
        for measure in study["measures"]:
            if measure not in fitting:
                raise ParamsError(
                    f"{place}.measures: {measure!r} is none for {kind} data; {hint(measure, fitting)}"
                )


def studied(study: dict[str, Any], setting: dict[str, Any], every: Params) -> dict[str, Any]:
    """Return the recipe of one setting: the study's, `base`, the setting, whatever the size is."""
    raw = {
        key: value for key, value in every.raw["models"][study["recipe"]].items() if key != "full"
    }
    for layer in (study["base"], setting):
        raw = overlay(raw, layer)
        if "arch" in layer:
            raw["net"] = copy.deepcopy(
                layer.get("net", {})
            )  # another architecture's options would not fit
    return raw


def entry(name: str, *parts: str) -> dict[str, Any]:
    """Return what stage params wrote for `name`: these parts of its resolved recipe, {"data", "arch", "net", ...}."""
    files = [OUT / name / f"{part}.json" for part in parts]
    if not all(file.exists() for file in files):
        raise ParamsError(
            f"{name}: no resolved recipe in {OUT}; put the name under `line:` and run `dvc repro params`"
        )
    return {key: value for file in files for key, value in json.loads(file.read_text()).items()}


def lay_out(params: Params, name: str) -> dict[str, dict[str, Any]]:
    """Return an entry's recipe in parts, each named after the first stage whose numbers depend on it."""
    recipe = params.models[name]
    train = {key: recipe[key] for key in ("arch", "net", "train", "weights", "needs", "head")} | {
        "size": params.size
    }
    train |= {"processes": params.processes} if params.processes > 1 else {}
    return {
        "data": {"data": recipe["data"]},
        "train": train | circumstances(params, recipe),
        "export": {key: recipe.get(key, False) for key in ("saliency", "streaming")}
        | {"check": {key: params.check[key] for key in EXPORTED}},
        "check": {"check": params.check},
        "explain": {"synthesis": recipe.get("synthesis", False), "explain": params.explain},
    }


def lay_out_study(params: Params, name: str) -> dict[str, Any]:
    """Return all that a study's numbers depend on, but for the stages' own code."""
    study = params.studies[name]
    recipes = {
        s: resolve(name, studied(study, layer, params), params.sets)
        for s, layer in study["settings"].items()
    }
    recipes |= {
        needs: params.models[needs]
        for recipe in list(recipes.values())
        if (needs := recipe["needs"])
    }
    return {
        "study": study,
        "kinds": {measure: schema.MEASURES[measure][1] for measure in study["measures"]},
        "recipes": {s: recipe | circumstances(params, recipe) for s, recipe in recipes.items()},
    }


def circumstances(params: Params, recipe: dict[str, Any]) -> dict[str, Any]:
    """Return what training depends on besides the recipe."""
    files = code.architecture_files(recipe["arch"])
    if recipe[
        "head"
    ]:  # here, not in dvc.yaml: a change reruns the entries that have a head, no others
        files += [path for path in map(code.module_file, code.HEAD_MODULES) if path]
    if recipe["weights"] and (path := paths.weights_path(recipe["weights"]["file"])):
        files.append(path)
    common = {key: getattr(params, key) for key in ("device", "deterministic", "threads")}
    return common | {"code": code.hash_files(*files)}


def leftovers(record: list[str], known: list[str]) -> list[Path]:
    """Return what the entries that this stage once laid out, and that params.yaml no longer names, have left behind."""
    gone = [name for name in record if name not in known]
    folders = (Path("results"), Path("out"), Path("out/dist"))
    return [folder / name for name in gone for folder in folders if (folder / name).exists()]


def keep_record(params: Params) -> None:
    """Add the line to the record of entries, and say what those that are gone have left: nobody else deletes it."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else []
    record += [
        path.name for path in sorted(OUT.glob("*/")) if path.name not in record
    ]  # of before there was a record
    left = leftovers(record, list(params.models))
    if left:
        print(
            f"   left by entries that params.yaml no longer names: rm -r {' '.join(map(str, left))}",
            file=sys.stderr,
        )
    kept = {path.name for path in left}
    record = [name for name in record if name in params.models or name in kept]
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(
        json.dumps(record + [name for name in params.line if name not in record]) + "\n"
    )
