"""The confidence interval of a proportion, such as an accuracy on a test set of n images."""

import math


def wilson_interval(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Return the ends of Wilson's score interval for successes / n; z = 1.96 is a confidence of 95
    %.

    E. B. Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference",
    Journal of the American Statistical Association 22.
    """
    p = successes / n
    center = p + z * z / (2 * n)
    half_width = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return (center - half_width) / scale, (center + half_width) / scale
