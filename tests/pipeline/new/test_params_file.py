"""An entry is inserted into params.yaml: the other lines stay, and a YAML library reads the entry."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import pytest
from recipes import ROOT
from ruamel.yaml import YAML

from pipeline.core.errors import ParamsError, StageError
from pipeline.new import params_file
from pipeline.new.params_file import Entry, path_text, preview, require_free_name, write
from pipeline.params import load as params

RECIPE = {
    "arch": "cnn2",
    "data": {"set": "pets", "size": [32, 32], "colour": "rgb"},
    "net": {"dropout": 0.3},
    "train": {"epochs": 3, "lr": 1e-5, "augment": {"flip": "horizontal"}},
}
SET = {"source": "folder", "path": "/data/my pets: [a, b] #1", "licence": "it's mine, 'yes'"}


def make_entry(**changes: Any) -> Entry:
    fields = {"name": "pets", "recipe": RECIPE, "data_set": SET, "seen": [], "why": "few # photos"}
    return Entry(**{**fields, "predict": "infer", **changes})


@pytest.fixture
def file(workspace: Path) -> Path:
    """A copy of the repository's params.yaml, the one with the most comments and anchors."""
    path = workspace / "params.yaml"
    path.write_bytes((ROOT / "params.yaml").read_bytes())
    return path


def read(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def added_lines(old: str, new: str) -> list[str]:
    """Return the inserted lines; no old line may be missing."""
    changes = list(difflib.ndiff(old.splitlines(True), new.splitlines(True)))
    assert not [line for line in changes if line.startswith("- ")]
    return [line[2:] for line in changes if line.startswith("+ ")]


def test_only_the_entry_is_added(file: Path) -> None:
    old, before = file.read_text(), read(file)
    write(make_entry())
    lines = added_lines(old, file.read_text())
    assert [line for line in lines if line.strip()] == [
        "  pets: scratch\n",
        """  pets: {source: folder, path: '/data/my pets: [a, b] #1', licence: "it's mine, 'yes'"}\n""",
        "  pets: # few # photos\n",
        "    arch: cnn2\n",
        "    data: {set: pets, size: [32, 32], colour: rgb}\n",
        "    net: {dropout: 0.3}\n",
        "    train: {epochs: 3, lr: 1e-05, augment: {flip: horizontal}}\n",
    ]
    after = read(file)
    entry = {"line": "scratch", "data": SET, "models": RECIPE}
    assert {key: after[key].pop("pets") for key in entry} == entry
    assert after == before
    assert params.load().models["pets"].train.lr == 1e-5


def test_a_section_ends_before_the_comment_of_the_next_one(file: Path) -> None:
    write(make_entry())
    lines = file.read_text().splitlines()
    after = lines[lines.index("    train: {epochs: 3, lr: 1e-05, augment: {flip: horizontal}}") :]
    assert after[1:3] == ["", next(line for line in lines if line.startswith("# Studies:"))]


def test_two_entries_one_after_the_other(file: Path) -> None:
    write(make_entry())
    write(make_entry(name="more", data_set=None))
    assert list(read(file)["models"])[-2:] == ["pets", "more"]
    assert "more" not in read(file)["data"] and params.load().line[-2:] == ["pets", "more"]


MINIMAL = """\
line:
    fcnn0-digits: scratch   # the only one
data: # sets
    digits: {source: digits}
# recipes
models:
    fcnn0-digits:
        arch: fcnn
        data: {set: digits, size: [8, 8],
            colour: grey}
        net: {hidden: [], dropout: 0.0}
        train: {epochs: 1}"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n", "\n\n# the end\n"])
def test_layout_is_kept(workspace: Path, end: str, last: str) -> None:
    """Other indentation, line ends of Windows, no newline at the end, a comment at the end."""
    path = workspace / "params.yaml"
    old = (MINIMAL + last).replace("\n", end).encode()
    path.write_bytes(old)
    write(make_entry())
    new = path.read_bytes()
    assert b"\n    pets: scratch" in new and b"\n        arch: cnn2" in new
    rest = new.decode().split(end)
    for line in old.decode().split(end):
        assert line in rest
        rest = rest[rest.index(line) + 1 :]
    assert (b"\r" in new) == (end == "\r\n") and new.count(b"\r") in (0, new.count(b"\n"))
    assert params.load().line == ["fcnn0-digits", "pets"]


def test_a_section_that_is_no_block_is_refused(workspace: Path) -> None:
    path = workspace / "params.yaml"
    text = MINIMAL.replace("line:\n    fcnn0-digits: scratch ", "line: {fcnn0-digits: scratch} ")
    path.write_text(text)
    with pytest.raises(ParamsError, match=r"params\.yaml line: expected a block of indented lines"):
        write(make_entry())
    assert path.read_text() == text


def test_an_invalid_entry_leaves_the_file_as_it_is(file: Path) -> None:
    old = file.read_bytes()
    with pytest.raises(ParamsError, match=r"params\.yaml models\.pets\.net"):
        write(make_entry(recipe=RECIPE | {"net": {"dropuot": 0.3}}))
    assert file.read_bytes() == old and not list(file.parent.glob(".new-*"))


def test_what_cannot_be_inserted_is_printed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that does not read back as the old content and the entry is never written."""
    old = file.read_bytes()
    insert = params_file.insert
    broken = "  lenet5-digits: scratch", "  lenet5-digits: source-digits"
    monkeypatch.setattr(params_file, "insert", lambda *a: insert(*a).replace(*broken, 1))
    with pytest.raises(StageError, match="add these lines to it") as error:
        write(make_entry())
    assert preview(make_entry()) in str(error.value) and file.read_bytes() == old


@pytest.mark.parametrize(
    "name, answer",
    [
        ("My Pets", "use 'my-pets'"),
        ("my_pets", "use 'my-pets'"),
        ("PETS", "use 'pets'"),
        ("--", "choose one such as 'pets'"),
        ("report", "'report' is reserved; use 'my-report'"),
        ("net", "'net' is reserved"),
        ("code", "'code' is reserved"),
        (
            "lenet5-digits",
            "has models.lenet5-digits already; choose another, such as 'lenet5-digits-2'",
        ),
        ("clothing", "has data.clothing already"),
    ],
)
def test_names_that_are_refused(shipped: params.Params, name: str, answer: str) -> None:
    with pytest.raises(StageError, match=answer):
        require_free_name(name, shipped)


def test_allowed_names(shipped: params.Params) -> None:
    for name in ("pets", "pets-2", "2026"):
        require_free_name(name, shipped)


def test_path_text(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to the repository or DATA_ROOT where that finds the folder, otherwise absolute."""
    root = tmp_path / "root"
    for folder in (root / "photos", workspace / "photos", root / "only", tmp_path / "else"):
        folder.mkdir(parents=True)
    monkeypatch.setenv("DATA_ROOT", str(root))
    assert path_text(Path("photos")) == path_text(workspace / "photos") == "photos"
    assert path_text(root / "only") == "only"
    assert path_text(root / "photos") == str(root / "photos")  # `photos` is the one here
    assert path_text(tmp_path / "else") == path_text(Path("..") / "else") == str(tmp_path / "else")
