"""Stage explain on a tiny trained line: pictures, facts that repeat, and errors."""

from __future__ import annotations

import json
from pathlib import Path

import line
import numpy as np
import pytest
from PIL import Image

from pipeline.core import digest
from pipeline.core.errors import StageError
from pipeline.explain import sections
from pipeline.params import load as params

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(line.copy_to(tmp_path))


@pytest.mark.parametrize("name", [line.DIGITS, line.WAVES])
def test_the_stage_draws_and_measures(name: str) -> None:
    """Each picture exists, has a size and a description, and is not blank; two runs give the same
    results.
    """
    line.run("explain", name)
    path, page = Path("results", name, "explain.json"), Path("out", name, "explain", "page.json")
    found = json.loads(page.read_text())
    shown = [picture for section in found["sections"] for picture in section["pictures"]]
    assert shown and {p.name for p in page.parent.iterdir()} == {p["file"] for p in shown} | {
        "page.json"
    }
    for picture in shown:
        with Image.open(Path("out", name, "explain", picture["file"])) as image:
            assert image.size == (2 * picture["width"], 2 * picture["height"])
            assert np.asarray(image).std() > 10
        assert picture["alt"] and picture["caption"]
    before = path.read_text(), page.read_text()
    line.run("explain", name)
    assert (path.read_text(), page.read_text()) == before


def test_a_linear_classifiers_facts() -> None:
    """One dense layer: integrated gradients have no gap, and the ONNX file's maps equal torch's."""
    line.run("explain", line.DIGITS)
    facts = json.loads(Path("out", line.DIGITS, "explain", "page.json").read_text())["facts"][
        "attribution"
    ]
    assert facts["completeness_gap"] < 1e-3 and facts["parity"] < 1e-5
    assert {
        "gradient",
        "integrated gradients",
        "occlusion",
        "LIME",
        "random order",
        "edges",
    } <= set(facts["methods"])
    mean, low, high = facts["methods"]["integrated gradients"]["deletion_gain"]
    assert (
        0 < low < mean < high
    )  # pixels that a linear model leans on, gone first, cost more than any others
    assert facts["methods"]["LIME"]["fidelity"] > 0.8
    committed = line.results(line.DIGITS, "explain")["facts"]["attribution"]
    assert "parity" not in committed and set(facts["methods"]) - set(committed["methods"]) == {
        "LIME"
    }


def test_a_file_of_another_network_is_an_error() -> None:
    """Its first weights differ from torch's."""

    def halve(array: np.ndarray) -> None:
        array *= 0.5

    line.change_model(
        line.DIGITS, lambda graph: line.change_weights(graph, halve, "weight"), keep_golden=False
    )
    with pytest.raises(
        StageError, match=r"the file's occlusion map differs from torch's by .*; export it again"
    ):
        line.run("explain", line.DIGITS)


def test_unstable_facts_are_not_committed() -> None:
    """t-SNE differs between processors, the nearest neighbours of features do not."""
    facts = {
        "embedding": {"points": 200, "knn_map": 0.96, "knn_features": 0.9846},
        "steps": [1, 2.0004],
    }
    kept = {"embedding": {"points": 200, "knn_features": 0.985}, "steps": [1, 2.0]}
    assert sections.select_stable_facts(facts, ("embedding.knn_map",)) == kept


def test_facts_are_finite_and_rounded() -> None:
    facts = {"a": np.float64(0.123456), "b": [1, 2.00004], "c": None, "d": True, "e": np.int64(7)}
    rounded = {"a": 0.1235, "b": [1, 2.0], "c": None, "d": True, "e": 7}
    assert sections.round_facts(facts, "f") == rounded
    with pytest.raises(
        StageError, match=r"explain: f.a is not finite; look at the training curves"
    ):
        sections.round_facts({"a": float("nan")}, "f")


def test_the_synthesis_switch_reruns_explain_only() -> None:
    """`synthesis` is in a file that no other stage reads; the stage's digest covers its imports."""
    before = params.lay_out(params.load(), line.DIGITS)
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(
        text.replace("    arch: fcnn\n", "    arch: fcnn\n    synthesis: true\n")
    )
    after = params.lay_out(params.load(), line.DIGITS)
    assert {file for file in before if before[file] != after[file]} == {"explain"}
    assert after["explain"]["synthesis"] is True
    files = {str(path) for path in digest.stage_files("explain")}
    assert {
        "pipeline/explain/attribution_metrics.py",
        "pipeline/explain/modified_relu.py",
        "serve/convline/explain/methods.py",
        "pipeline/plots/style.py",
    } <= files
