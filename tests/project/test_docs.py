"""docs/: links lead somewhere, commands exist; metrics, datasets, weights, networks and studies are
listed.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import click
import pytest
from convline.cli.main import main as infer
from ruamel.yaml import YAML

import models
from pipeline.evaluate.metric_catalogue import CATALOGUE
from pipeline.new.__main__ import data_entry, network_entry
from pipeline.params import schema
from pipeline.report import claims

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_the_docs_exist(page: Path) -> None:
    """Files and headings within the repository."""
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        headings = re.findall(r"^#+ (.*)", found.read_text(), re.M) if anchor else []
        assert not anchor or anchor in [
            re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings
        ], target


def shell_commands(page: str) -> list[list[str]]:
    """Return the words of each command of a page's sh and console blocks, variables cut."""
    lines = []
    for kind, block in re.findall(r"```(sh|console)\n(.*?)```", page, re.S):
        whole = block.replace("\\\n", " ").splitlines()
        lines += [
            line.removeprefix("$ ") for line in whole if kind == "sh" or line.startswith("$ ")
        ]
    found = []
    for line in lines:
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set("|&;"):
                found.append(command)
                command = []
            elif command or not re.match(r"\w+=", word):
                command.append(word)
    return [command for command in found if command]


def is_there(program: str, *words: str) -> bool:
    """Return whether a command of ours exists with these options; others are not judged."""
    if program == "make":
        return all(is_target(word) for word in words if "=" not in word)
    if program == "python" and words[0] == "-m":
        if words[1] == "pipeline.new":
            entry, rest = (data_entry, words[2:])
            if words[2] == "net":
                entry, rest = network_entry, words[3:]
            return is_parsed(entry, rest)
        return importlib.util.find_spec(words[1]) is not None
    if program == "python":
        return (ROOT / words[0]).is_file()
    if program == "infer":
        return words[0] in infer.commands and is_parsed(infer.commands[words[0]], words[1:])
    if program == "dvc":
        from dvc.cli.parser import get_main_parser

        try:
            get_main_parser().parse_args([*words])
        except Exception:
            return False
    return True


def is_target(name: str) -> bool:
    """Return whether the Makefile has a target of this name."""
    makefile = (ROOT / "Makefile").read_text()
    return bool(re.search(rf"^(?:[a-z -]+ )?{name}(?: [a-z ]+)?:", makefile, re.M))


def is_parsed(command: click.Command, words: tuple[str, ...]) -> bool:
    """Return whether click takes these words: the options exist and none is missing."""
    try:
        command.make_context("command", [*words])
    except click.exceptions.Exit:  # --help
        return True
    except click.ClickException:
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_exists(page: Path) -> None:
    """In the blocks of a page: targets of make, modules, options of `infer`, of `pipeline.new` and
    of DVC. In its sentences: what stands in backticks.
    """
    text = page.read_text(encoding="utf-8")
    assert [words for words in shell_commands(text) if not is_there(*words)] == []
    inline = re.findall(r"`((?:make|python|infer) [a-z][\w. /=-]*)`", re.sub("```.*?```", "", text))
    assert [words for words in inline if not is_there_in_words(words.split())] == []


def is_there_in_words(words: list[str]) -> bool:
    """As `is_there`; arguments may be left out of a sentence."""
    if words[0] == "infer":
        return words[1] in infer.commands
    return is_there(*words[:2]) if words[0] == "make" else is_there(*words[:3])


def test_commands_that_do_not_exist_are_found() -> None:
    """The oracle of the test above: one wrong word each."""
    page = """```sh
make reprot
python -m pipeline.tran x
infer imges m a.png
infer images m a.png --topk 2
python -m pipeline.new pets --image ~/pets
dvc exp shw
X=1 infer list && make test   # these two exist
```"""
    found = shell_commands(page)
    assert [is_there(*words) for words in found] == [False] * 6 + [True] * 2


def test_the_lecture_notes_lead_to_code_tests_and_studies() -> None:
    """docs/lecture-notes.md: what it names exists; it names every study and every network."""
    page = (ROOT / "docs" / "lecture-notes.md").read_text(encoding="utf-8")
    text = page.partition("## Claims")[0]
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    words = set(re.findall(r"`([^`\n]+)`", text))
    files = {word for word in words if word.startswith(("models/", "pipeline/", "serve/"))}
    assert len(files) > 30 and [f for f in files if "<" not in f and not (ROOT / f).is_file()] == []
    named = {word for word in words if word.startswith("test_") and word != "test_..."}
    assert len(named) > 30 and [name for name in named if f"def {name}(" not in tests] == []
    assert {f"models/{arch}.py" for arch in models.names()} - files == set()
    assert {*PARAMS["studies"]} == set(re.findall(r"/studies/([a-z0-9-]+)\.md", text))
    recipes = {word for word in words if re.fullmatch(r"[a-z0-9]+-(digits|waves)", word)}
    assert len(recipes) > 15 and recipes <= {*PARAMS["models"]}


def test_the_claims_of_the_lecture_notes_are_the_measured_ones() -> None:
    page = (ROOT / "docs" / "lecture-notes.md").read_text(encoding="utf-8")
    assert claims.claims_markdown(ROOT) in page, "run `make readme`"


def test_every_data_set_and_weight_file_is_listed_with_its_licence() -> None:
    rows = [
        line
        for line in (ROOT / "docs" / "data.md").read_text().splitlines()
        if line.startswith("|")
    ]
    for name, spec in PARAMS["data"].items():
        (row,) = [row for row in rows if f"`{name}`" in row.split("|")[1]]
        licence = (
            spec.get("licence") or schema.SOURCES[spec["source"]].model_fields["licence"].default
        )
        assert row.split("|")[4].strip() == licence, name
    weights = re.findall(
        r"weights: \{file: (\S+), licence: ([^}]+)\}", (ROOT / "params.yaml").read_text()
    )
    for file, licence in weights:
        assert any(f"`{file}`" in row and f"| {licence} |" in row for row in rows), file


def test_the_table_of_metrics_is_the_catalogue() -> None:
    """docs/dvc.md has each metric of metrics.json with its unit and meaning, and no other."""
    page = (ROOT / "docs" / "dvc.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) is better \|$", page, re.M)
    better = {"higher": "higher", "lower": "lower", "nominal": "near the nominal value"}
    known = [
        (metric.key, metric.unit, f"{metric.meaning}; {better[metric.better]}")
        for metric in CATALOGUE.values()
    ]
    assert rows == known
