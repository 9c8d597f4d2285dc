"""The architecture of docs/architecture.md: which folder imports which, and how stages are
named.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.core import digest

ROOT = Path(__file__).parents[2]
FOLDERS = ("models", "pipeline", "serve", "tests", "benchmarks")
OURS = {"models", "pipeline", "convline", "tests", "benchmarks", "docs"}
MAY_IMPORT = {
    "serve": {"convline"},
    "models": {"models"},
    "pipeline": {"pipeline", "models", "convline"},
}
TORCH_FREE = ["params", "data", "check", "package", "wheel", "infer", "report"]
# Package of pipeline/ -> the packages of pipeline/ that it may import.
PIPELINE_ARROWS = {
    "core": set(),
    "params": {"core"},
    "data": {"core", "params"},
    "network": {"core", "params", "data"},
    "train": {"core", "params", "data", "network"},
    "evaluate": {"core", "params", "data"},
    "plots": {"core", "params", "evaluate"},
    "export": {"core", "params", "data", "network", "train"},
    "check": {"core", "params", "data", "evaluate", "export"},  # of export: graph_analysis alone
    "explain": {"core", "params", "data", "network", "train", "plots"},
    "study": {"core", "params", "data", "network", "train", "evaluate"},
    "package": {"core", "params"},
    "wheel": {"core"},
    "line": {"core", "params"},
    "infer": {"core", "params", "data"},
    "report": {"core", "params", "data", "plots", "evaluate"},
    "new": {"core", "params", "data", "network"},
}


def imports(path: Path) -> set[str]:
    """Return the top-level packages that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_import_arrows(folder: str) -> None:
    """pipeline -> models, pipeline -> convline; convline and models import nothing of ours."""
    for path in (ROOT / folder).rglob("*.py"):
        assert imports(path) & OURS <= MAY_IMPORT[folder], path


def test_pipeline_arrows() -> None:
    """Each package of pipeline/ imports only the packages below it, also inside functions."""
    folders = {path.parent.name for path in (ROOT / "pipeline").glob("*/*.py")}
    assert folders == PIPELINE_ARROWS.keys()
    for folder, allowed in PIPELINE_ARROWS.items():
        for path in (ROOT / "pipeline" / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            imported = set(re.findall(r"^ *(?:from|import) pipeline\.(\w+)", text, re.M))
            imported |= set(re.findall(r"^ *from pipeline import (\w+)", text, re.M))
            assert imported <= allowed | {folder}, path
            if folder == "check":  # a verdict on the files, without the code that wrote them
                assert set(re.findall(r"pipeline\.export\.?(\w*)", text)) <= {"graph_analysis"}


def test_models_import_torch_only() -> None:
    """Architectures import torch, torchvision where its network is the paper's, and the standard
    library.
    """
    for path in (ROOT / "models").rglob("*.py"):
        assert imports(path) <= {"torch", "torchvision", "models"} | set(sys.stdlib_module_names), (
            path
        )


def test_serve_imports_what_its_wheel_declares() -> None:
    declared = {"numpy", "PIL", "click", "onnxruntime", "openvino", "pyarrow", "ray", "convline"}
    for path in (ROOT / "serve").rglob("*.py"):
        assert imports(path) <= declared | set(sys.stdlib_module_names), path


def test_every_import_is_declared() -> None:
    """pyproject.toml declares what each folder imports; a dependency of a dependency is not
    enough.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {
        name: set(map(distribution, packages))
        for name, packages in project["optional-dependencies"].items()
    }
    served = set(map(distribution, project["dependencies"])).union(
        *(extras[e] for e in extras if e not in ("train", "dev"))
    )
    declared = {
        "serve": served,
        "models": served | extras["train"],
        "pipeline": served | extras["train"],
    }
    declared |= dict.fromkeys(("benchmarks", "tests"), served | extras["train"] | extras["dev"])
    # loader.py, loops.py and contenders.py say how to install them.
    others = {"timm", "optimum", "transformers", "cv2", "ncnn", "pnnx"}
    declared["benchmarks"] = declared["benchmarks"] | others
    known = packages_distributions()
    for folder, allowed in declared.items():
        local = {path.stem for path in (ROOT / folder).rglob("*.py")} | {
            path.name for path in (ROOT / folder).glob("*/")
        }
        for path in (ROOT / folder).rglob("*.py"):
            for name in imports(path) - OURS - set(sys.stdlib_module_names) - local:
                packages = {distribution(package) for package in known.get(name, [])} | {name}
                assert packages & allowed, (
                    f"{path} imports {name}: declare {' or '.join(sorted(packages))}"
                )


def distribution(requirement: str) -> str:
    """Return the name of "Ruamel.yaml>=0.18" or "onnxruntime-gpu[cuda]" as registries compare
    names.
    """
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()


@pytest.mark.slow
@pytest.mark.parametrize("stage", TORCH_FREE)
def test_stage_imports_without_torch(stage: str) -> None:
    """These stages judge and pack the served files, so they import with torch blocked."""
    code = f"import sys; sys.modules['torch'] = None; import pipeline.{stage}.__main__"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_importing_models_imports_no_architecture() -> None:
    code = "import sys, models; sys.exit(any(m.startswith('models.') for m in sys.modules) or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_architecture_has_a_recipe_and_every_recipe_an_architecture() -> None:
    recipes = YAML(typ="safe").load(ROOT / "params.yaml")["models"]
    bound = {
        p.stem
        for p in (ROOT / "models").glob("*.py")
        if re.search(r"^Model = \w+$", p.read_text(), re.M)
    }
    assert {recipe["arch"] for recipe in recipes.values() if "arch" in recipe} == bound


def stages() -> dict[str, dict]:
    return YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


def test_every_stage_is_a_package_whose_docstring_is_its_contract() -> None:
    """The docstring says what the stage reads and writes, when it fails, and its command."""
    for name, stage in stages().items():
        body = stage.get("do", stage)
        assert body["cmd"].split()[:3] == ["python", "-m", f"pipeline.{name}"]
        main = (ROOT / "pipeline" / name / "__main__.py").read_text(encoding="utf-8")
        doc = " ".join((ast.get_docstring(ast.parse(main)) or "").split())
        assert doc.startswith(f"Stage {name}: ")
        for word in ("Reads ", "Writes ", "Fails ", f"python -m pipeline.{name}"):
            assert word in doc, (name, word)


def test_a_stage_depends_on_the_code_that_it_imports() -> None:
    """dvc.yaml names the digest of each stage's code, and the digest covers what is imported."""
    for name, stage in stages().items():
        deps = stage.get("do", stage).get("deps", [])
        assert name == "params" or f"out/code/{name}.txt" in deps, name
        assert not [dep for dep in deps if dep.endswith(".py")], name
    found = {name: {str(path) for path in digest.stage_files(name)} for name in stages()}
    assert {
        "pipeline/train/loop.py",
        "pipeline/train/losses.py",
        "models/summary.py",
        "pipeline/data/dataset.py",
    } <= found["train"]
    # What sources decide is in the dataset, on which training depends.
    assert "pipeline/data/image_sources.py" not in found["train"]
    assert {
        "pipeline/data/image_sources.py",
        "serve/convline/images/decode.py",
        "pipeline/train/losses.py",
        "pipeline/evaluate/over_seeds.py",
    } <= found["study"]
    assert {
        "serve/convline/timeseries/forecaster.py",
        "serve/convline/runtime/session.py",
        "pipeline/evaluate/metrics.py",
    } <= found["check"]
    assert not any("pipeline/train/heads.py" in files for files in found.values())
    assert sorted(stages()) == digest.stage_names()


def test_code_lines_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the code lines of each folder, without blank lines, comments and docstrings."""
    counts = {
        folder: sum(code_lines(p) for p in (ROOT / folder).rglob("*.py")) for folder in FOLDERS
    }
    with capsys.disabled():
        print(
            "\n   code lines " + ", ".join(f"{folder} {count}" for folder, count in counts.items())
        )
    assert all(counts.values())


def code_lines(path: Path) -> int:
    """Return the number of lines with code: not blank, no comment, no docstring."""
    tree = ast.parse(path.read_text())
    lines: set[int] = set()
    strings: set[int] = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            strings |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    for number, line in enumerate(path.read_text().split("\n"), 1):
        if line.strip() and not line.strip().startswith("#") and number not in strings:
            lines.add(number)
    return len(lines)


def test_lock_holds_no_address() -> None:
    """The lock names no registry, so it works with the one that the machine has."""
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"https?://|index|find-links|@ file", text)
    assert re.search(r"^torch==", text, re.M) and "torch==2.13.0" not in text
