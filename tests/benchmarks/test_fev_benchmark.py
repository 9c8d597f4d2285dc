"""benchmarks/fev.py: its two scores against hand values, its windows and its seasonal naive against
plain loops.
"""

import math
from statistics import NormalDist

import numpy as np
import pytest

from benchmarks import fev


def test_the_scores_by_hand() -> None:
    """The past moves by 2 in 24 hours. Quantiles from -4 to 4 of a target 0 lose twice (.1 4 + .2 3
    + .3 2 + .4 1) on either side, 8 together, over nine levels and the scale 2; a forecast of 3 is
    1.5 scales away.
    """
    past = [np.concatenate([np.zeros(24), np.full(24, 2.0)])[:, None]]
    quantiles = np.arange(-4.0, 5).reshape(1, 1, 1, 9)
    got = fev.score(past, np.zeros((1, 1, 1)), np.full((1, 1, 1), 3.0), quantiles)
    assert got == pytest.approx({"sql": 8 / 9 / 2, "mase": 1.5, "inside": 1})
    above = fev.score(past, np.full((1, 1, 1), 5.0), np.full((1, 1, 1), 5.0), quantiles)
    assert above["inside"] == 0 and above["mase"] == 0
    # errors 9 to 1, twice each by its level: 2 (.9 + 1.6 + 2.1 + 2.4 + 2.5 + 2.4 + 2.1 + 1.6 + .9)
    assert above["sql"] == pytest.approx(33 / 9 / 2)


def test_equal_quantiles_score_as_the_forecast() -> None:
    """SQL is scaled so that without any spread it is MASE; each column has its own scale."""
    rng = np.random.default_rng(0)
    past = [rng.normal(size=(100 + k, 2)) * [1, 50] for k in range(3)]
    target, forecast = rng.normal(size=(2, 3, 4, 2))
    got = fev.score(past, target, forecast, np.repeat(forecast[..., None], 9, -1))
    assert got["sql"] == pytest.approx(got["mase"])
    scales = [np.abs(rows[24:] - rows[:-24]).mean(0) for rows in past]
    parts = [np.abs(target[k] - forecast[k]) / scales[k] for k in range(3)]
    assert got["mase"] == pytest.approx(np.mean(parts))


def test_windows_and_seasonal_naive_equal_plain_loops() -> None:
    """A growing daily cycle with noise; the windows are the last 20 weeks, the quantiles those of a
    normal distribution whose deviation grows with the seasons ahead.
    """
    rng, rows = np.random.default_rng(1), 3360 + 2600
    hours = np.arange(rows)
    y = (1 + hours / rows) * np.sin(2 * np.pi * hours / 24) + 0.3 * rng.normal(size=rows)
    past, target = fev.cut_windows(y[:, None])
    got = fev.score(past, target, *fev.naive_forecasts(past))
    levels = [k / 10 for k in range(1, 10)]
    losses, errors, covered = [], [], []
    for week in range(20):
        cut = rows - (20 - week) * 168
        scale = sum(abs(y[t] - y[t - 24]) for t in range(24, cut)) / (cut - 24)
        squares = [(y[t] - y[t - 24]) ** 2 for t in range(cut - 2500 + 24, cut)]
        deviation = math.sqrt(sum(squares) / len(squares))
        for step in range(168):
            forecast, truth = y[cut - 24 + step % 24], y[cut + step]
            spread = deviation * math.sqrt(step // 24 + 1)
            for level in levels:
                error = truth - (forecast + NormalDist().inv_cdf(level) * spread)
                losses.append(2 * (level * error if error > 0 else (level - 1) * error) / scale)
            errors.append(abs(truth - forecast) / scale)
            covered.append(abs(truth - forecast) <= NormalDist().inv_cdf(0.9) * spread)
    expected = {"sql": np.mean(losses), "mase": np.mean(errors), "inside": np.mean(covered)}
    assert got == pytest.approx(expected)


def test_the_table_divides_by_the_naive_row_of_the_same_series() -> None:
    """Chronos-2's published .883 is .732 of the published naive row; ours, of the naive row here."""
    naive = {"sql": 2.0, "mase": 4.0, "inside": 0.7}
    one = {"sql": 1.0, "mase": 3.0, "inside": 0.81, "validation": 0.9}
    text = fev.results_table(
        naive,
        {"ours": [one | {"parameters": 1234, "seconds": 5.0, "members": {"a": {}}}]},
        ["ETTh1"],
    )
    assert "| Chronos-2, published | ETTh1 and ETTh2 | 0.883 | 1.126 | 0.732 | 0.851 |" in text
    assert "| ours | ETTh1 | 1.000 | 3.000 | 0.500 | 0.750 | 0.810 | 0.900 | 1,234 | 5 |" in text
