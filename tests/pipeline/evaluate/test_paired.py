"""Two models on the same samples: the interval of the difference of accuracies, McNemar's exact
test, and the ratio of errors.
"""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from pipeline.evaluate import paired
from pipeline.evaluate.metrics import error_ratio

TABLES = [
    (1, 1, 7, 12),
    (340, 9, 3, 8),
    (36, 12, 2, 0),
    (355, 5, 0, 0),
    (20, 0, 0, 0),
    (0, 9, 9, 2),
]


@pytest.mark.parametrize("table", TABLES)
def test_interval_is_newcombe_s_method_10_from_its_limits(table: tuple[int, ...]) -> None:
    """The oracle solves |p - theta| = z sqrt(theta (1 - theta) / n) for Wilson's limits and combines
    them as a vector sum with the angle acos(phi) (Newcombe 1998, section 2).
    """
    a, b, c, d = table
    n, z = sum(table), norm.ppf(0.975)
    limits = [
        np.roots([1 + z**2 / n, -(2 * p + z**2 / n), p**2]).real for p in ((a + b) / n, (a + c) / n)
    ]
    (l1, u1), (l2, u2) = map(sorted, limits)
    p, q = (a + b) / n, (a + c) / n
    product = a * d - b * c
    product = product if product < 0 else max(0, product - n / 2)
    margins = np.prod([a + b, c + d, a + c, b + d], dtype=float)
    phi = product / np.sqrt(margins) if margins else 0
    down = np.linalg.norm(
        (p - l1) * np.array([1, 0]) - (u2 - q) * np.array([phi, (1 - phi**2) ** 0.5])
    )
    up = np.linalg.norm(
        (u1 - p) * np.array([1, 0]) - (q - l2) * np.array([phi, (1 - phi**2) ** 0.5])
    )
    assert paired.accuracy_difference(*table) == pytest.approx(
        (p - q, p - q - down, p - q + up), abs=1e-4
    )


def test_interval_of_a_published_table() -> None:
    """Fagerland, Lydersen & Laake 2014, "Recommended tests and confidence intervals for paired
    binomial proportions", Statistics in Medicine 33: 21 children, 1, 1, 7 and 12, have the
    difference -0.286 with Newcombe's interval -0.507 to -0.026; McNemar's exact p is 0.070.
    """
    found = paired.accuracy_difference(1, 1, 7, 12)
    assert found == pytest.approx((-0.286, -0.507, -0.026), abs=6e-4)
    assert paired.mcnemar_p_value(1, 7) == pytest.approx(0.0703, abs=1e-4)


def test_interval_without_correlation_is_that_of_statsmodels_for_two_samples() -> None:
    """Where phi is 0, as in the first table, it is Newcombe's interval of unpaired samples."""
    from statsmodels.stats.proportion import confint_proportions_2indep

    low, high = confint_proportions_2indep(2, 21, 8, 21, method="newcomb", compare="diff")
    assert paired.accuracy_difference(1, 1, 7, 12)[1:] == pytest.approx((low, high), abs=1e-4)


def test_interval_of_the_swapped_pair_is_its_mirror_and_never_empty() -> None:
    """Wald's interval of two models that agree on all images has no width; this one has."""
    for a, b, c, d in TABLES:
        difference, low, high = paired.accuracy_difference(a, b, c, d)
        assert paired.accuracy_difference(a, c, b, d) == pytest.approx((-difference, -high, -low))
        assert low < high and low <= difference <= high


def test_mcnemar_is_the_binomial_test() -> None:
    """scipy's binomtest; statsmodels' mcnemar(exact=True); thousands of images do not overflow."""
    from statsmodels.stats.contingency_tables import mcnemar

    for first, second in ((1, 7), (9, 3), (4, 4), (0, 6), (2100, 1900)):
        right = binomtest(first, first + second).pvalue
        assert paired.mcnemar_p_value(first, second) == pytest.approx(right, rel=1e-8)
        table = mcnemar([[5, first], [second, 5]], exact=True)
        assert paired.mcnemar_p_value(second, first) == pytest.approx(table.pvalue, rel=1e-8)
    assert paired.mcnemar_p_value(0, 0) == 1


def test_error_ratios_are_those_of_stage_check_for_each_pair() -> None:
    """`error_ratio` of two entries alone; the ratio of an entry to itself is 1 without a width."""
    errors = np.random.default_rng(0).exponential(size=(3, 40)) * np.array([[1.0], [2], [5]])
    ratios = paired.error_ratios(errors, block=4)
    for i in range(3):
        for j in range(3):
            assert ratios[i, j] == pytest.approx(error_ratio(errors[i], errors[j], 4))
        assert ratios[i, i] == pytest.approx([1, 1, 1])
    assert ratios[2, 0, 1] > 1  # five times the error


def test_error_ratio_to_a_model_without_errors_is_not_finite() -> None:
    ratios = paired.error_ratios(np.array([[0.0, 0, 0], [1, 2, 3]]), block=1)
    assert not np.isfinite(ratios[1, 0]).any() and ratios[0, 1].tolist() == [0, 0, 0]
