"""One file is the model: the JSON document inside an .onnx file, how it is written and what is checked on reading.

The document lies in `metadata_props["convline"]` of the ModelProto; `serve/convline/model_file/schema.py` says what it must hold. Its
`digest` is sha256 over every other top-level field of the file, byte for byte in file order, followed by the canonical
JSON of the document without the digest. It detects damage, not forgery: whoever can change the file can compute it
again, so authenticity comes from outside (`manifest.json` beside the file).
"""

import base64
import binascii
import builtins
import hashlib
import json
import math
import os
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from convline.errors import ModelFileError
from convline.model_file.prune import only, output_names
from convline.model_file.schema import check_document, check_format
from convline.model_file.wire import (
    GRAPH,
    IR_VERSION,
    METADATA_PROPS,
    Field,
    ProtobufError,
    encode_bytes,
    fields,
    refusal,
)

PROPERTY = "convline"
MAX_MODEL_BYTES = 2**31 - 1  # protobuf's own limit for one message
MAX_TOP_FIELDS = (
    10_000  # a ModelProto has some ten; each is kept, so more would be memory that no model needs
)
MAX_ENTRY_FIELDS = 16  # of one metadata property, which has a key and a value
MAX_DOCUMENT_BYTES = 64 * 2**20
MAX_NESTING = 64  # of the document; ours has 6 levels
MAX_GOLDEN_BYTES = (
    64 * 2**20
)  # one golden array unpacked; ours are kilobytes, a zlib bomb is gigabytes
GOLDEN_DTYPES = ("uint8", "int64", "float16", "float32", "float64")
STEP = ("step_", "next_")  # how the outputs of a step graph begin
EXPORT = "export the model again"


@dataclass(frozen=True)
class Contract:
    """A model file that was read whole and found undamaged: its bytes and what they promise."""

    path: Path
    document: dict[str, Any]
    bytes: builtins.bytes = field(repr=False)

    @property
    def name(self) -> str:
        return str(self.document["name"])

    @property
    def task(self) -> str:
        return str(self.document["task"])

    @property
    def labels(self) -> list[str]:
        """Class names in the order of the probabilities' columns; empty for a forecaster."""
        return list(self.document.get("labels", []))

    @property
    def explains(self) -> bool:
        """Whether the graph also answers `scores` and `saliency`, for `infer explain`."""
        return "explain" in self.document

    @property
    def streams(self) -> bool:
        """Whether the graph also forecasts from one new sample at a time, for `convline.runtime.streaming`."""
        return "stream" in self.document

    @cached_property
    def served(self) -> builtins.bytes:
        """The graph that predictions run on: without the gradient or the steps, where the file holds them."""
        if self.streams:
            return only(self.bytes, ["forecast", "quantiles"])
        return only(self.bytes, ["probabilities"]) if self.explains else self.bytes

    @cached_property
    def stepped(self) -> builtins.bytes:
        """The graph of one step of a stream; ModelFileError where the file holds none."""
        names = [name for name in output_names(self.bytes) if name.startswith(STEP)]
        if not (self.streams and names):
            why = "it forecasts from whole windows, which no stream does; export it with `streaming: true`"
            raise ModelFileError(f"{self.path}: expected a step graph, got none: {why}")
        return only(self.bytes, names)

    @property
    def digest(self) -> str:
        return str(self.document["digest"])


def seal(model: bytes, document: dict[str, Any]) -> bytes:
    """Return the ModelProto bytes with `document` and its digest as their only metadata property."""
    if refused := refusal(model):
        raise ModelFileError(f"seal: {refused}; change the export")
    sealed = json.loads(
        _canonical({key: value for key, value in document.items() if key != "digest"})
    )
    check_document(sealed, "seal")
    view = memoryview(model)
    parts = [view[f.start : f.stop] for f in fields(view) if f.number != METADATA_PROPS]
    sealed["digest"] = _digest(parts, sealed)
    entry = encode_bytes(1, PROPERTY.encode()) + encode_bytes(2, _canonical(sealed))
    return b"".join([*parts, encode_bytes(METADATA_PROPS, entry)])


def read(path: str | Path, sha256: str | None = None) -> Contract:
    """Return the contract of an .onnx file; ModelFileError names the file, what is wrong with it, and the cure.

    `sha256` is what the user or a manifest expects of the whole file, checked on the very bytes that are served.
    """
    path = Path(path)
    model = _read_bytes(path)
    if sha256 is not None and (found := hashlib.sha256(model).hexdigest()) != sha256:
        raise ModelFileError(
            f"{path}: expected the sha256 {sha256}, got {found}; get the right file"
        )
    top = _top_level(model, path)
    document = _document(top, path)
    check_format(
        document, str(path)
    )  # before the digest, which a newer format may compute otherwise
    view = memoryview(model)
    parts = [view[f.start : f.stop] for f in top if f.number != METADATA_PROPS]
    if document.get("digest") != _digest(
        parts, {key: value for key, value in document.items() if key != "digest"}
    ):
        raise ModelFileError(
            f"{path}: the file is damaged, its digest does not fit; copy it again or {EXPORT}"
        )
    check_document(document, str(path))
    try:
        refused = refusal(model)
    except ProtobufError as error:
        raise ModelFileError(
            f"{path}: expected an ONNX graph, got bytes that are none ({error}); {EXPORT}"
        ) from error
    if refused:
        raise ModelFileError(f"{path}: {refused}; {EXPORT}")
    return Contract(path=path, document=document, bytes=model)


def pack(array: npt.NDArray[Any]) -> dict[str, Any]:
    """Return a golden array as JSON: dtype, shape, and base64 of zlib of its little-endian C-order bytes."""
    if array.dtype.name not in GOLDEN_DTYPES:
        raise ValueError(
            f"pack: expected dtype of {', '.join(GOLDEN_DTYPES)}, got {array.dtype.name}"
        )
    raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    data = base64.b64encode(zlib.compress(raw, 9)).decode()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def unpack(packed: dict[str, Any]) -> npt.NDArray[Any]:
    """Return the array that `pack` packed; ModelFileError where sizes do not agree or exceed MAX_GOLDEN_BYTES."""
    dtype, shape, data = packed["dtype"], packed["shape"], packed["data"]
    if dtype not in GOLDEN_DTYPES:
        raise ModelFileError(
            f"golden array: expected dtype of {', '.join(GOLDEN_DTYPES)}, got {dtype!r}; {EXPORT}"
        )
    if not (
        isinstance(shape, list)
        and all(type(n) is int and n >= 0 for n in shape)
        and len(shape) <= 8
    ):
        raise ModelFileError(
            f"golden array: expected a shape of at most 8 counts, got {shape!r}; {EXPORT}"
        )
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    if expected > MAX_GOLDEN_BYTES:
        raise ModelFileError(
            f"golden array: expected at most {MAX_GOLDEN_BYTES} bytes, got {expected}; {EXPORT}"
        )
    try:
        inflate = zlib.decompressobj()
        raw = inflate.decompress(base64.b64decode(data, validate=True), expected + 1)
    except (TypeError, ValueError, binascii.Error, zlib.error) as error:
        raise ModelFileError(
            f"golden array: expected base64 of zlib, got neither ({error}); {EXPORT}"
        ) from error
    if len(raw) != expected:
        raise ModelFileError(
            f"golden array: expected {expected} bytes of data, got another size; {EXPORT}"
        )
    return np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")).astype(dtype).reshape(shape)


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def _digest(parts: list[memoryview], document: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    digest.update(_canonical(document))
    return digest.hexdigest()


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    """JSON has no infinity, but 1e999 reads as one."""
    value = float(text)
    return value if math.isfinite(value) else _no_constant(text)


def _check_nesting(value: Any) -> None:
    """Raise ValueError where lists and objects nest so deep that code which recurses over them could fail."""
    level: list[Any] = [[value]]
    depth = 0
    while level := [
        inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)
    ]:
        level, depth = [inner for inner in level if isinstance(inner, dict | list)], depth + 1
        if depth > MAX_NESTING:
            raise ValueError(f"it nests deeper than {MAX_NESTING}")


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            got = "something else" if path.exists() else "no such file"
            raise ModelFileError(
                f"{path}: expected an .onnx file, got {got}; name the file of a model"
            )
        size = os.path.getsize(path)
        if size > MAX_MODEL_BYTES:
            raise ModelFileError(
                f"{path}: expected at most {MAX_MODEL_BYTES} bytes, got {size}; one file is the model"
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from error


def _top_level(model: bytes, path: Path) -> list[Field]:
    """Return the fields of the ModelProto; an error tells a truncated file from one that never was ONNX."""
    try:
        found = list(islice(fields(memoryview(model)), MAX_TOP_FIELDS))
    except ProtobufError as error:
        if error.cut and model[:1] == bytes(
            [IR_VERSION << 3]
        ):  # every exporter writes the IR version first
            raise ModelFileError(
                f"{path}: the file is truncated ({error}); copy it again or {EXPORT}"
            ) from error
        raise ModelFileError(
            f"{path}: expected an ONNX file, got other bytes ({error}); {EXPORT}"
        ) from error
    numbers = {f.number for f in found}
    if not {IR_VERSION, GRAPH} <= numbers:
        raise ModelFileError(
            f"{path}: expected an ONNX file, got {len(model)} bytes without a graph; {EXPORT}"
        )
    if len(found) == MAX_TOP_FIELDS:
        raise ModelFileError(
            f"{path}: expected fewer than {MAX_TOP_FIELDS} fields, got a stuffed file; {EXPORT}"
        )
    return found


def _document(top: list[Field], path: Path) -> dict[str, Any]:
    """Return the parsed JSON of the one `convline` property."""
    values = []
    try:
        for entry in (f.value for f in top if f.number == METADATA_PROPS):
            if isinstance(entry, int):
                raise ProtobufError("metadata is a number")
            parts = {f.number: f.value for f in islice(fields(entry), MAX_ENTRY_FIELDS)}
            key = parts.get(1)
            if isinstance(key, memoryview) and key == PROPERTY.encode():
                values.append(parts.get(2, b""))
        if not values:
            raise ModelFileError(
                f"{path}: expected Convline's metadata, got an ONNX file without it; {EXPORT}"
            )
        if len(values) > 1 or isinstance(values[0], int) or len(values[0]) > MAX_DOCUMENT_BYTES:
            raise ModelFileError(
                f"{path}: expected one metadata document under {MAX_DOCUMENT_BYTES} bytes; {EXPORT}"
            )
        document: dict[str, Any] = json.loads(
            bytes(values[0]), parse_constant=_no_constant, parse_float=_finite
        )
        _check_nesting(document)
    except (ProtobufError, ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path}: expected metadata that is JSON, got other bytes ({error}); {EXPORT}"
        ) from error
    return document
