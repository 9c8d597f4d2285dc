"""One .onnx file is the model: how it is written (`seal`), and what is checked when it is read.

The model document is JSON in `metadata_props["convline"]` of the ModelProto. Its `digest` is the
sha256 of every other top-level field of the file, byte for byte in file order, followed by the
canonical JSON of the document without the digest. It detects damage, not forgery: whoever changes
the file can compute it anew. Authenticity needs a hash from elsewhere, such as `manifest.json`.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, NoReturn

from convline.errors import ModelFileError
from convline.model_file.document import ClassifierDocument, Document, parse_document
from convline.model_file.onnx_messages import GRAPH, IR_VERSION, METADATA_PROPS
from convline.model_file.policy import refusal_reason
from convline.model_file.prune import keep_outputs, output_names
from convline.model_file.schema import check_document, check_format
from convline.model_file.wire import Field, ProtobufError, encode_bytes, read_fields

PROPERTY = "convline"
MAX_MODEL_BYTES = 2**31 - 1  # protobuf's own limit for one message
MAX_TOP_FIELDS = 10_000  # a ModelProto has some ten; each one is kept in memory
MAX_ENTRY_FIELDS = 16  # of one metadata property, which has a key and a value
MAX_DOCUMENT_BYTES = 64 * 2**20
MAX_NESTING = 64  # of the document; ours has 6 levels
EXPORT = "export the model again"
COPY = f"copy it again or {EXPORT}"


@dataclass(frozen=True)
class ModelFile:
    """A model file that was read and checked: its document, and its bytes."""

    path: Path
    json: dict[str, Any]  # the document as it is in the file
    content: bytes = field(repr=False)

    @cached_property
    def document(self) -> Document:
        try:
            return parse_document(self.json)
        except ValueError as error:
            raise _error(self.path, f"metadata key 'input': {error}") from error

    @property
    def name(self) -> str:
        return self.document.name

    @property
    def task(self) -> str:
        """A key of `convline.model_file.document.DOCUMENTS`."""
        return self.document.task

    @property
    def digest(self) -> str:
        """The sha256, in hex, that `compute_digest` returns of the file."""
        return self.document.digest

    @property
    def has_gradient(self) -> bool:
        """Whether the graph also computes `scores` and `saliency`, for `infer explain`."""
        return isinstance(self.document, ClassifierDocument) and self.document.explain

    @property
    def has_step_graph(self) -> bool:
        """Whether the graph also computes a step: of a `Stream`, or the next word of a caption."""
        return self.document.has_step

    @cached_property
    def prediction_graph(self) -> bytes:
        """The ModelProto without the gradient or the step graph that the file may hold."""
        document = self.document
        if not document.has_other_outputs:
            return self.content
        return keep_outputs(self.content, document.OUTPUTS)

    @cached_property
    def step_graph(self) -> bytes:
        """The ModelProto of one step; ModelFileError if the file has none."""
        names = [n for n in output_names(self.content) if n not in self.document.OUTPUTS]
        if not (self.has_step_graph and names):
            cure = "export it with `streaming: true`"
            raise _error(self.path, "expected a step graph, got none", cure)
        return keep_outputs(self.content, names)


def seal(model: bytes, document: dict[str, Any]) -> bytes:
    """Return the ModelProto with `document` and its digest as the only metadata property.

    ModelFileError if `read_model_file` would refuse the result.
    """
    if reason := refusal_reason(model):
        raise ModelFileError(f"seal: {reason}; change the export")
    sealed = json.loads(_canonical_json(document))
    sealed.pop("digest", None)
    check_document(sealed, "seal")
    view = memoryview(model)
    parts = [view[f.start : f.stop] for f in read_fields(view) if f.number != METADATA_PROPS]
    sealed["digest"] = compute_digest(parts, sealed)
    entry = encode_bytes(1, PROPERTY.encode()) + encode_bytes(2, _canonical_json(sealed))
    return b"".join([*parts, encode_bytes(METADATA_PROPS, entry)])


def read_model_file(path: str | Path, sha256: str | None = None) -> ModelFile:
    """Return an .onnx file after all checks; ModelFileError states the fault and its cure.

    sha256: the hash that the file must have, in hex. It is checked on the bytes that are served.
    """
    path = Path(path)
    model = _read_bytes(path)
    if sha256 is not None and (actual := hashlib.sha256(model).hexdigest()) != sha256:
        raise _error(path, f"expected the sha256 {sha256}, got {actual}", "get the right file")
    fields = _read_top_level(model, path)
    document = _read_document(fields, path)
    check_format(document, str(path))  # first: a newer format may have another digest
    view = memoryview(model)
    parts = [view[f.start : f.stop] for f in fields if f.number != METADATA_PROPS]
    rest = {key: value for key, value in document.items() if key != "digest"}
    if document.get("digest") != compute_digest(parts, rest):
        raise _error(path, "the file is damaged, its digest does not fit", COPY)
    check_document(document, str(path))
    try:
        reason = refusal_reason(model)
    except ProtobufError as error:
        raise _error(path, f"expected an ONNX graph, got bytes that are none ({error})") from error
    if reason:
        raise _error(path, reason)
    return ModelFile(path, document, model)


def compute_digest(parts: Iterable[memoryview], document: dict[str, Any]) -> str:
    """Return the digest of a file's other top-level fields and its document without the digest."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    digest.update(_canonical_json(document))
    return digest.hexdigest()


def _canonical_json(document: dict[str, Any]) -> bytes:
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            got = "something else" if path.exists() else "no such file"
            raise _error(path, f"expected an .onnx file, got {got}", "name the file of a model")
        if (size := os.path.getsize(path)) > MAX_MODEL_BYTES:
            what = f"expected at most {MAX_MODEL_BYTES} bytes, got {size}"
            raise _error(path, what, "export a smaller model")
        return path.read_bytes()
    except OSError as error:
        cure = "check its permissions"
        raise _error(path, f"cannot be read ({error.strerror})", cure) from error


def _read_top_level(model: bytes, path: Path) -> list[Field]:
    """Return the fields of the ModelProto; the error tells a truncated file from another format."""
    try:
        fields = list(islice(read_fields(memoryview(model)), MAX_TOP_FIELDS))
    except ProtobufError as error:
        # Every exporter writes the IR version first.
        if error.truncated and model[:1] == bytes([IR_VERSION << 3]):
            raise _error(path, f"the file is truncated ({error})", COPY) from error
        raise _error(path, f"expected an ONNX file, got other bytes ({error})") from error
    if not {IR_VERSION, GRAPH} <= {f.number for f in fields}:
        raise _error(path, f"expected an ONNX file, got {len(model)} bytes without a graph")
    if len(fields) == MAX_TOP_FIELDS:
        raise _error(path, f"expected fewer than {MAX_TOP_FIELDS} top-level fields, got more")
    return fields


def _read_document(fields: list[Field], path: Path) -> dict[str, Any]:
    """Return the parsed JSON of the one `convline` property."""
    values = []
    try:
        for entry in (f.value for f in fields if f.number == METADATA_PROPS):
            if isinstance(entry, int):
                raise ProtobufError("metadata is a number")
            parts = {f.number: f.value for f in islice(read_fields(entry), MAX_ENTRY_FIELDS)}
            key = parts.get(1)
            if isinstance(key, memoryview) and key == PROPERTY.encode():
                values.append(parts.get(2, b""))
        if not values:
            raise _error(path, "expected Convline's metadata, got an ONNX file without it")
        if len(values) > 1 or isinstance(values[0], int) or len(values[0]) > MAX_DOCUMENT_BYTES:
            raise _error(path, f"expected one metadata document under {MAX_DOCUMENT_BYTES} bytes")
        document: dict[str, Any] = json.loads(
            bytes(values[0]), parse_constant=_refuse_constant, parse_float=_parse_finite
        )
        _check_nesting(document)
    except (ProtobufError, ValueError, RecursionError) as error:
        what = f"expected metadata that is JSON, got other bytes ({error})"
        raise _error(path, what) from error
    return document


def _error(path: Path, what: str, cure: str = EXPORT) -> ModelFileError:
    return ModelFileError(f"{path}: {what}; {cure}")


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _parse_finite(text: str) -> float:
    """Return a float; ValueError for 1e999, which Python reads as infinity."""
    value = float(text)
    return value if math.isfinite(value) else _refuse_constant(text)


def _check_nesting(value: Any) -> None:
    """Raise ValueError if lists and objects nest so deep that recursive code could fail."""
    level: list[Any] = [value]
    for _ in range(MAX_NESTING):
        objects = [one.values() for one in level if isinstance(one, dict)]
        lists = [one for one in level if isinstance(one, list)]
        level = [*chain(*objects, *lists)]
        if not level:
            return
    raise ValueError(f"it nests deeper than {MAX_NESTING}")
