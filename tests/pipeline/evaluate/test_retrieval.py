"""Retrieval with features, against scikit-learn's neighbours and its average precision (R15)."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.neighbors import NearestNeighbors

from pipeline.evaluate import retrieval
from pipeline.evaluate.retrieval import NEAREST, measure_retrieval


@pytest.mark.parametrize("at_once", [7, 256])
def test_retrieval_is_scikit_learns(at_once, monkeypatch):
    monkeypatch.setattr(retrieval, "QUERIES_AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    classes, asked = rng.integers(0, 3, 80), rng.integers(0, 3, 25)
    database = (rng.standard_normal((80, 6)) + np.eye(3, 6)[classes]).astype(np.float32)
    queries = (rng.standard_normal((25, 6)) + np.eye(3, 6)[asked]).astype(np.float32)
    facts, nearest = measure_retrieval(database, queries, classes, asked)
    distances, expected = NearestNeighbors().fit(database).kneighbors(queries, 80)
    assert (nearest == expected[:, :NEAREST]).all()
    hits = classes[expected] == asked[:, None]
    assert facts["precision"] == pytest.approx(hits[:, :NEAREST].mean())
    each = [
        average_precision_score(hit, -distance)
        for hit, distance in zip(hits, distances, strict=True)
    ]
    assert facts["mean_average_precision"] == pytest.approx(np.mean(each))
    assert (
        facts["by_chance"] == pytest.approx((classes == asked[:, None]).mean())
        and facts["queries"] == 25
    )


def test_a_class_that_the_database_lacks_scores_nothing():
    facts, _ = measure_retrieval(np.eye(6), np.eye(6)[:1], np.zeros(6, int), np.array([4]))
    assert (facts["precision"], facts["mean_average_precision"]) == (0, 0)
