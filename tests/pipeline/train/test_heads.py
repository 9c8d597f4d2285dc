"""Heads on features: cross-validation, their files, and their ONNX form."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from pipeline.core.errors import StageError
from pipeline.export import head_graph
from pipeline.params.schema import Head
from pipeline.study import measures
from pipeline.train import head_files, head_training, heads

CPU = torch.device("cpu")


# ---- heads


@pytest.fixture(scope="module")
def clouds() -> tuple[np.ndarray, np.ndarray]:
    """Return features of three classes that overlap a little."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    return (rng.standard_normal((120, 10)) + 2.5 * np.eye(3, 10)[y]).astype(np.float32), y


def test_an_mlp_leaves_the_process_its_threads(clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is trained inside stages and studies, whose recipes set the number of threads."""
    monkeypatch.setattr(heads, "MLP", (4,))
    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        for threads, mode in ((2, False), (1, True)):
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(mode)
            heads.Mlp(dropout=0.0, epochs=1, seed=0).fit(*clouds)
            assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (
                threads,
                mode,
            )
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic)


@pytest.mark.slow
@pytest.mark.parametrize("kind", heads.GRIDS)
def test_a_heads_graph_equals_scikit_learn(kind: str, built, base_state, monkeypatch) -> None:
    """Probabilities of the joined graph, from uint8 images on, compared with scikit-learn on
    torch's features. A small forest and MLP have the same operators.
    """
    monkeypatch.setattr(heads, "TREES", 30)
    monkeypatch.setattr(heads, "MLP", (40, 40, 20))
    made, source = built("linear", kind=kind)
    headed, state = head_training.fit_recipe(made, source, on=CPU, label=kind, base=base_state)
    assert len(headed.head.table) == np.prod([len(v) for v in heads.GRIDS[kind].values()])
    assert {"kind": headed.head.kind, "options": headed.head.options}.items() <= max(
        headed.head.table, key=lambda row: row["accuracy"]
    ).items()
    images = np.array(source.x["test"])
    with torch.no_grad():
        expected = headed(torch.from_numpy(images)).numpy()
    graph = head_graph.export_with_head(headed, images)
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    beyond_cuda = {node.domain for node in graph.graph.node} - {""}
    assert beyond_cuda == (set() if kind in head_graph.TORCH_KINDS else {"ai.onnx.ml"})
    empty = (
        [] if "svm" in kind else [images[:0]]
    )  # ArrayFeatureExtractor refuses no rows; `serve` answers
    for rows in (images, images[:1], images[:7], *empty):
        (got,) = session.run(None, {"images": rows})
        flipped = (
            np.abs(got - expected[: len(rows)]).max(1) > 1e-4
        )  # of a forest: a feature on a split's edge
        assert got.shape == (len(rows), 3) and flipped.sum() <= (2 if kind == "forest" else 0)
        ranked = np.sort(expected[: len(rows)], axis=1)
        tied = (
            ranked[:, -1] - ranked[:, -2] < 1e-6
        )  # votes of a forest: rounding decides which class comes first
        assert ((got.argmax(1) != expected[: len(rows)].argmax(1)) & ~tied).sum() <= flipped.sum()
        np.testing.assert_allclose(got.sum(1), 1, atol=1e-5)
    right = (expected.argmax(1) == source.y["test"]).mean()
    assert right > 0.6  # chance is .33
    run = measures.Run(made, source, headed, state)
    assert measures.accuracy(run) == pytest.approx(right)  # as a study measures it
    assert state.history[0]["validation_accuracy"] > 0.5


def test_best_is_the_best_of_all_kinds(clouds, monkeypatch) -> None:
    """The candidate of the highest cross-validated accuracy wins; of equals the first."""
    ranks = {"linear": 0.7, "mlp": 0.6, "forest": 0.9, "svm-linear": 0.9, "svm-rbf": 0.5}
    monkeypatch.setattr(heads, "cross_validate", lambda kind, *rest: (ranks[kind], 0.0))
    monkeypatch.setattr(heads, "TREES", 5)
    head = heads.fit_head(Head(kind="best", folds=3), *clouds, ["a", "b", "c"], 1, "here")
    assert head.kind == "forest" and head.options == {"max_features": "sqrt", "min_samples_leaf": 1}
    assert len(head.table) == sum(
        np.prod([len(v) for v in grid.values()]) for grid in heads.GRIDS.values()
    )


def test_cross_validation_does_not_look_at_the_fold_it_scores(clouds) -> None:
    """On three clouds most predictions are right; labels without signal stay at chance."""
    x, y = clouds
    shuffled = np.random.default_rng(1).permutation(y)
    assert heads.cross_validate("linear", {"C": 1.0}, x, y, 4, 1)[0] > 0.75
    assert (
        heads.cross_validate(
            "forest", {"max_features": "sqrt", "min_samples_leaf": 1}, x, shuffled, 4, 1
        )[0]
        < 0.5
    )


@pytest.mark.parametrize(
    ("labels", "y", "folds", "sentence"),
    [
        (["a"], [0] * 6, 3, r"here: a head needs two classes or more, got \['a'\]"),
        (["a", "b", "c"], [0, 1] * 5, 3, "here: class 'c' has no training image"),
        (
            ["a", "b"],
            [0] * 9 + [1] * 2,
            3,
            r"class 'b' has 2 training images, fewer than head.folds \(3\)",
        ),
    ],
)
def test_data_that_no_head_can_learn_are_an_error(labels, y, folds, sentence) -> None:
    x = np.zeros((len(y), 4), np.float32)
    with pytest.raises(StageError, match=sentence):
        heads.fit_head(Head(kind="linear", folds=folds), x, np.array(y), labels, 1, "here")


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression_in_torch_equals_scikit_learn(clouds, classes: int) -> None:
    """predict_proba in float64, for two classes (one column of weights) and for three."""
    x, y = clouds[0][clouds[1] < classes], clouds[1][clouds[1] < classes]
    fitted = heads.fit_estimator("linear", {"C": 1.0}, x, y, 1)
    assert fitted[-1].coef_.shape == ({2: 1, 3: 3}[classes], 10)
    got = head_graph.TorchHead(heads.Head("linear", {}, fitted))(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, fitted.predict_proba(x.astype(np.float64)), atol=1e-6)
    assert np.ptp(got, axis=0).min() > 0.5


@pytest.mark.parametrize("kind", heads.GRIDS)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_saved_head_equals_the_fitted_one(
    clouds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, classes: int
) -> None:
    """On rows that the estimator has not seen.

    Nothing is fitted to read it, and nothing is pickled.
    """
    monkeypatch.setattr(heads, "MLP", (8, 4))
    monkeypatch.setattr(heads, "TREES", 20)
    x, y = clouds[0][clouds[1] < classes], clouds[1][clouds[1] < classes]
    options = {name: values[0] for name, values in heads.GRIDS[kind].items()} | (
        {"epochs": 1} if kind == "mlp" else {}
    )
    head = heads.Head(kind, options, heads.fit_estimator(kind, options, x[:60], y[:60], 1))
    head_files.write(head, x[:60], tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.suffix == {"linear": ".npz", "mlp": ".pt"}.get(kind, ".onnx")
    monkeypatch.setattr(heads, "quiet_fit", None)
    monkeypatch.setattr(heads.loop, "fit", None)
    again = heads.Head(kind, options, head_files.read(kind, options, tmp_path))
    apart = np.abs(again.probabilities(x) - head.probabilities(x)).max(1)
    assert (apart > 1e-5).sum() <= (2 if kind == "forest" else 0)
    if kind in head_graph.TORCH_KINDS:
        got = head_graph.TorchHead(again)(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(got, head.probabilities(x), atol=1e-5)


def test_a_head_that_is_saved_wrongly_is_an_error(clouds, tmp_path: Path) -> None:
    """The arrays on disk are those of another fit."""
    x, y = clouds
    head, other = (
        heads.Head("linear", {"C": c}, heads.fit_estimator("linear", {"C": c}, x, y, 1))
        for c in (1.0, 0.001)
    )
    head.probabilities = other.probabilities  # type: ignore[method-assign]
    with pytest.raises(
        StageError,
        match=r"train: the stored linear differs from the fitted one on \d+ of 120",
    ):
        head_files.write(head, x, tmp_path)


def test_a_joined_graph_keeps_one_opset_of_each_domain(clouds) -> None:
    head = heads.fit_head(Head(kind="svm-linear", folds=3), *clouds, ["a", "b", "c"], 1, "here")
    graph = head_files.head_to_onnx(head, 10, 18)
    assert [o.name for o in graph.graph.output] == ["probabilities"]
    onnx.checker.check_model(graph)
