"""Numbers as text with 6 significant digits, as "%.6g" writes them, many at once."""

import numpy as np
import numpy.typing as npt

FEW = 256  # numbers that are as fast one by one
WIDTH = 17  # bytes: sign, 0.000, and six digits with a point behind any but the last
POWERS = 10.0 ** np.arange(-4, 6)
LEAST, MOST = 1e-4, 999_999.0  # beyond these "%.6g" writes an exponent, or is about to
UNSURE = 1e-6  # of the sixth digit: a product is exact to 1e-10 of it, and nearer to a half the true value decides

Bytes = npt.NDArray[np.uint8]


def digits(numbers: npt.NDArray[np.float64]) -> Bytes:
    """Return (n, WIDTH) characters of each number, 0 where there is none; of nan there are none."""
    if len(numbers) < FEW:
        return _one_by_one(numbers)
    size = np.abs(numbers)
    plain = (size >= LEAST) & (size < MOST)
    size = np.where(plain, size, 1.0)
    exponent = np.searchsorted(POWERS, size, "right") - 5  # of the first digit, -4 to 5
    scaled = size * 10.0 ** (5 - exponent)
    whole = np.floor(scaled)
    rest = scaled - whole
    plain &= np.abs(rest - 0.5) > UNSURE
    count = (whole + (rest > 0.5)).astype(np.int64)
    exponent += count == 10**6  # 9.999999 is 10
    count = np.where(count == 10**6, 10**5, count)
    text = np.zeros((len(numbers), WIDTH), np.uint8)
    text[:, 0] = np.where(numbers < 0, ord("-"), 0)
    for place, mark in enumerate(b"0.000"):
        text[:, 1 + place] = np.where(exponent < min(0, 1 - place), mark, 0)
    last = np.full(len(numbers), -1)  # the place of the last digit that is not 0
    for place in range(6):
        digit = count // 10 ** (5 - place) % 10
        text[:, 6 + 2 * place] = digit + ord("0")
        last = np.where(digit > 0, place, last)
    for place in range(6):
        text[:, 6 + 2 * place] *= place <= np.maximum(last, exponent)
        if place < 5:
            text[:, 7 + 2 * place] = np.where((exponent == place) & (last > place), ord("."), 0)
    text[~plain] = _one_by_one(numbers[~plain])
    return text


def _one_by_one(numbers: npt.NDArray[np.float64]) -> Bytes:
    words = ("%.6g " * len(numbers) % tuple(numbers.tolist())).replace("nan", "-").split()
    text = np.array(words, f"S{WIDTH}").view(np.uint8).reshape(-1, WIDTH)
    text[np.isnan(numbers)] = 0
    return text
