"""The digest of a stage's code follows its imports, and changes with what the code does, not with
its text.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import convline
import pytest
from recipes import ROOT, copy_params

from pipeline.core import digest as code
from pipeline.params import load as params
from pipeline.params.network_options import architectures

FOLDERS = ("models", "pipeline", "serve")
HEADED = {str(code.module_file(name)) for name in code.HEAD_MODULES}
REACHES_NO_STAGE = {str(code.module_file(name)) for name in code.IGNORED_MODULES} - HEADED


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code and of params.yaml."""
    root = tmp_path_factory.mktemp("tree")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    copy_params(root)
    return root


@pytest.fixture
def digests(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, str]]:
    """Return a function that digests the tree: {"stage train": ..., "arch tcn": ..., "head": ...},
    for entries with that.
    """
    monkeypatch.chdir(tree)
    known: dict[tuple[Path, bytes], bytes] = {}
    content, line = code.file_content, params.load()

    def once(path: Path) -> bytes:
        key = (path, path.read_bytes())
        if key not in known:
            known[key] = content(path)
        return known[key]

    monkeypatch.setattr(code, "file_content", once)
    modules = {stage: code.stage_files(stage) for stage in code.stage_names() if stage != "params"}
    here = [recipe for recipe in line.models.values() if not recipe.weights]
    recipes = {f"arch {recipe.arch}": recipe for recipe in here if not recipe.head}
    recipes["head"] = next(recipe for recipe in here if recipe.head)
    parts = {name: code.architecture_files(recipe.arch) for name, recipe in recipes.items()}
    made = {recipes[name].arch: paths for name, paths in parts.items()}
    monkeypatch.setattr(code, "architecture_files", lambda arch: [*made[arch]])

    def now() -> dict[str, str]:
        found = {f"stage {stage}": code.hash_files(*paths) for stage, paths in modules.items()}
        return found | {
            name: params.in_environment(line, recipe).code for name, recipe in recipes.items()
        }

    return now


def imports(path: Path) -> set[str]:
    """Return the files of this repository that the text of a file imports, also inside functions."""
    text = re.sub(r"^if TYPE_CHECKING:\n(?: .*\n|\n)*", "", path.read_text(), flags=re.M)
    text = re.sub(r'"""(?:.|\n)*?"""', "", text)  # programs in strings
    found = set()
    for package, names in re.findall(r"^ *(?:from (\S+) )?import (\([^)]*\)|[^#\n]+)", text, re.M):
        for name in re.findall(r"[\w.]+(?: as \w+)?", re.sub("#.*", "", names)):
            word = name.split(" as ")[0]
            full = f"{package}.{word}" if package else word
            for dotted in (full, package):
                file = Path(*dotted.split(".")) if dotted else Path("nothing")
                file = "serve" / file if file.parts[0] == "convline" else file
                made = next(
                    (f for f in (file.with_suffix(".py"), file / "__init__.py") if f.is_file()),
                    None,
                )
                if made:
                    found.add(str(made))
                    break
    return {name for name in found if name.split("/")[0] in FOLDERS}


def expected(files: list[Path]) -> dict[str, set[str]]:
    """Return which of the names of `digests` must change with each file, by the imports between
    files. A stage consists of its imports, and of theirs. The files of a module's packages run
    before it.
    """
    direct = {str(path): imports(path) for path in files}
    must: dict[str, set[str]] = {name: set() for name in direct}
    starts = {
        f"stage {stage}": f"pipeline/{stage}/__main__.py"
        for stage in code.stage_names()
        if stage != "params"
    }
    starts |= {f"arch {arch}": f"models/{arch}.py" for arch in architectures()}
    starts["head"] = "models/cnn2.py"
    for name, start in starts.items():
        seen, waiting = set(), [start]
        while waiting:
            file = waiting.pop()
            if file in seen:
                continue
            seen.add(file)
            waiting += direct[file]
            if name.startswith("stage"):
                waiting = [f for f in waiting if f not in REACHES_NO_STAGE | HEADED]
        folders = {
            folder
            for file in seen
            for folder in Path(file).parents
            if folder.name and folder.name != "serve"
        }
        seen |= {f"{folder}/__init__.py" for folder in folders}
        for file in seen | (HEADED if name == "head" else set()):
            must[file].add(name)
    return must


def test_an_edited_constant_changes_the_digests_of_its_importers(
    tree: Path, digests: Callable[[], dict[str, str]]
) -> None:
    """The imports between the files are read by a regular expression here; each file of the tree is
    edited.
    """
    files = sorted(path for folder in FOLDERS for path in Path(folder).rglob("*.py"))
    must, before = expected(files), digests()
    for path in files:
        text = path.read_text()
        path.write_text(f"{text}\nEDITED = 1\n")
        now = digests()
        path.write_text(text)
        assert {name for name in before if now[name] != before[name]} == must[str(path)], path
    assert "arch ensemble" in must["models/tcn.py"] and "arch cnn2" not in must["models/tcn.py"]
    assert {"stage data", "stage train", "stage check"} <= must[
        "serve/convline/timeseries/calendar_features.py"
    ]
    assert not any(must[name] for name in REACHES_NO_STAGE) and must["pipeline/train/heads.py"] == {
        "head"
    }


def test_docstrings_comments_and_layout_do_not_change_the_digest(
    tree: Path, digests: Callable[[], dict[str, str]]
) -> None:
    """Each file of the tree gets another docstring, a comment and an empty line."""
    before = digests()
    for folder in FOLDERS:
        for path in Path(folder).rglob("*.py"):
            lines = path.read_text().replace('"""', '"""Words. ', 1).split("\n")
            path.write_text("\n".join(["# a comment", "", *lines, "", "# another"]))
    assert digests() == before


def test_code_and_used_strings_change_the_digest(tmp_path: Path) -> None:
    """Three texts that do the same, two that do not."""
    texts = [
        'def f(x):\n    """Return x."""\n    return x, "a"\n',
        "def f(x):\n    # a comment\n    return x, 'a'\n",
        'def f(x):\n    return (\n        x,\n        "a"\n    )\n',
        'def f(x):\n    return x, "b"\n',
        'def f(x, y=1.0):\n    return x, "a"\n',
    ]
    found = []
    for k, text in enumerate(texts):
        path = tmp_path / f"{k}.py"
        path.write_text(text)
        found.append(code.hash_files(path))
    assert len(set(found[:3])) == 1 and len(set(found)) == 3


def test_all_imports_can_be_followed() -> None:
    """There are no relative imports.

    Modules imported by a computed name are architectures, whose file an entry depends on.
    """
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        text = path.read_text()
        assert not re.search(r"^ *from \.", text, re.M), path
        if "import_module(" in text:
            known = (
                "models/__init__.py",
                "pipeline/line/fork_server.py",
                "pipeline/data/series_sources.py",
                "serve/convline/__init__.py",
            )
            assert path.relative_to(ROOT).as_posix() in known, path
    late = "|".join(
        convline.LATE
    )  # what serve/convline/__init__.py imports when it is asked for: the stages name its module
    for path in (ROOT / "pipeline").rglob("*.py"):
        assert not re.search(
            rf"from convline import [^\n]*\b({late})\b|\bconvline\.({late})\b", path.read_text()
        ), path


def test_a_file_is_parsed_again_only_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study asks for the digest of its stage at each run."""
    monkeypatch.chdir(tmp_path)
    code.imported_names.cache_clear()
    code.tree_content.cache_clear()
    file = tmp_path / "models" / "tiny.py"
    file.parent.mkdir()
    (file.parent / "other.py").touch()
    file.write_text("x = 1\n")
    parsed: list[bytes] = []
    parse = code.ast.parse

    def count_parsed(text: bytes, *rest: object, **options: object) -> object:
        parsed.append(text)
        return parse(text, *rest, **options)

    monkeypatch.setattr(code.ast, "parse", count_parsed)

    def digest() -> tuple[str, int]:
        return code.hash_files(*code.architecture_files("tiny")), len(parsed)

    first, count = digest()
    assert count and digest() == (first, count)
    file.write_text("import models.other\nx = 1\n")
    assert [path.stem for path in code.architecture_files("tiny")] == ["other", "tiny"]
    assert digest()[0] != first and len(parsed) > count
