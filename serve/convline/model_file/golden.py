"""Golden samples: small arrays inside the model document, as JSON."""

import base64
import binascii
import math
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from convline.errors import ModelFileError

MAX_BYTES = 64 * 2**20  # of one array; ours are kilobytes, a zlib bomb would be gigabytes
MAX_RANK = 8
DTYPES = ("uint8", "int64", "float16", "float32", "float64")


def pack_array(array: npt.NDArray[Any]) -> dict[str, Any]:
    """Return {"dtype", "shape", "data"}.

    data is base64 of zlib of the little-endian bytes in C order. ValueError for
    a dtype that is not in DTYPES.
    """
    if array.dtype.name not in DTYPES:
        raise ValueError(
            f"pack_array: expected dtype of {', '.join(DTYPES)}, got {array.dtype.name}"
        )
    raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    data = base64.b64encode(zlib.compress(raw, 9)).decode()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def unpack_array(packed: dict[str, Any]) -> npt.NDArray[Any]:
    """Return the array of what `pack_array` returned.

    Untrusted: ModelFileError if dtype, shape and data do not agree, or if the array has more than
    MAX_BYTES.
    """
    dtype, shape, data = packed["dtype"], packed["shape"], packed["data"]
    if dtype not in DTYPES:
        raise _error(f"dtype of {', '.join(DTYPES)}", repr(dtype))
    counts = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
    if not counts or len(shape) > MAX_RANK:
        raise _error(f"a shape of at most {MAX_RANK} counts", repr(shape))
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size > MAX_BYTES:
        raise _error(f"at most {MAX_BYTES} bytes", str(size))
    try:
        compressed = base64.b64decode(data, validate=True)
        raw = zlib.decompressobj().decompress(compressed, size + 1)
    except (TypeError, ValueError, binascii.Error, zlib.error) as error:
        raise _error("base64 of zlib", f"neither ({error})") from error
    if len(raw) != size:
        raise _error(f"{size} bytes of data", "another size")
    return np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")).astype(dtype).reshape(shape)


def _error(expected: str, got: str) -> ModelFileError:
    return ModelFileError(f"golden array: expected {expected}, got {got}; export the model again")
