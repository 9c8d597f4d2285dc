"""Numbers as text with 6 significant digits, as "%.6g" writes them, many at once."""

import numpy as np
import numpy.typing as npt

FEW = 256  # numbers that are as fast one by one
WIDTH = 16  # bytes, two words: sign and leading zeros, -0.000, then the digits and their point
POWERS = 10.0 ** np.arange(-4, 6)
SCALES = 10.0 ** np.arange(9, -1, -1)  # to six digits before the point
LEAST, MOST = 1e-4, 999_999.0  # beyond these "%.6g" writes an exponent, or is about to
UNSURE = 1e-6  # of the sixth digit: a product is exact to 1e-10 of it, and nearer to a half the true value decides

Bytes = npt.NDArray[np.uint8]


def _words(texts: list[bytes]) -> npt.NDArray[np.uint64]:
    """Return texts of up to 8 characters as whole numbers, so that all of one are moved at once."""
    return np.frombuffer(b"".join(text.ljust(8, b"\0") for text in texts), "<u8")


THREE = _words([b"%03d" % k for k in range(1000)])
LEAD = _words([b"\0" + b"0.000"[: 1 - e if e < 0 else 0] for e in range(-4, 6)])  # by exponent
POINT = _words([b"." if e >= 0 else b"" for e in range(-4, 6)])
BITS = np.uint64(8) * np.arange(8, dtype=np.uint64)  # before a place
FIRST = (np.uint64(1) << BITS) - np.uint64(1)  # the places before one
LAST = np.array([0 if k % 100 == 0 else 1 if k % 10 == 0 else 2 for k in range(1000)])  # digit of three that is not 0


def digits(numbers: npt.NDArray[np.float64]) -> Bytes:
    """Return (n, WIDTH) characters of each number, or as many as there are, 0 where there is none; of nan none."""
    if len(numbers) < FEW:
        return _one_by_one(numbers)
    size = np.abs(numbers)
    plain = (size >= LEAST) & (size < MOST)
    size = np.where(plain, size, 1.0)
    exponent = np.searchsorted(POWERS, size, "right") - 5  # of the first digit, -4 to 5
    scaled = size * SCALES[exponent + 4]
    whole = np.floor(scaled)
    rest = scaled - whole
    plain &= np.abs(rest - 0.5) > UNSURE
    count = (whole + (rest > 0.5)).astype(np.int32)
    exponent += count == 10**6  # 9.999999 is 10
    count[count == 10**6] = 10**5
    high = count // 1000
    low = count - 1000 * high
    last = np.where(low > 0, 3 + LAST[low], LAST[high])  # the place of the last digit that is not 0
    six = (THREE[high] | THREE[low] << BITS[3]) & FIRST[np.maximum(last, exponent) + 1]
    at = np.maximum(exponent, -1) + 1  # digits before the point, where one is shown
    before, point = six & FIRST[at], np.where(last > exponent, POINT[exponent + 4], 0)
    text = np.empty((len(numbers), 2), "<u8")
    text[:, 0] = LEAD[exponent + 4] | np.where(numbers < 0, np.uint64(ord("-")), np.uint64(0))
    text[:, 1] = before | point << BITS[at] | (six ^ before) << np.where(exponent < 0, BITS[0], BITS[1])
    found = text.view(np.uint8)
    if not plain.all():
        found[~plain] = _one_by_one(numbers[~plain])
    return found if text[:, 0].any() else found[:, 8:]


def _one_by_one(numbers: npt.NDArray[np.float64]) -> Bytes:
    words = ("%.6g " * len(numbers) % tuple(numbers.tolist())).replace("nan", "-").split()
    text = np.array(words, f"S{WIDTH}").view(np.uint8).reshape(-1, WIDTH)
    text[np.isnan(numbers)] = 0
    return text
