"""Image retrieval in feature space."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.neighbors import NearestNeighbors

from pipeline.evaluate import retrieval
from pipeline.evaluate.retrieval import NEAREST, measure_retrieval


@pytest.mark.parametrize("at_once", [7, 256])
def test_retrieval_equals_scikit_learn(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-learn's nearest neighbours and average precision."""
    monkeypatch.setattr(retrieval, "QUERIES_AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    labels, query_labels = rng.integers(0, 3, 80), rng.integers(0, 3, 25)
    database = (rng.standard_normal((80, 6)) + np.eye(3, 6)[labels]).astype(np.float32)
    queries = (rng.standard_normal((25, 6)) + np.eye(3, 6)[query_labels]).astype(np.float32)
    facts, nearest = measure_retrieval(database, queries, labels, query_labels)
    distances, expected = NearestNeighbors().fit(database).kneighbors(queries, 80)
    assert (nearest == expected[:, :NEAREST]).all()
    hits = labels[expected] == query_labels[:, None]
    assert facts["precision"] == pytest.approx(hits[:, :NEAREST].mean())
    each = [
        average_precision_score(hit, -distance)
        for hit, distance in zip(hits, distances, strict=True)
    ]
    assert facts["mean_average_precision"] == pytest.approx(np.mean(each))
    assert facts["by_chance"] == pytest.approx((labels == query_labels[:, None]).mean())


def test_a_class_that_the_database_lacks_scores_zero() -> None:
    facts, _ = measure_retrieval(np.eye(6), np.eye(6)[:1], np.zeros(6, int), np.array([4]))
    assert (facts["precision"], facts["mean_average_precision"]) == (0, 0)
