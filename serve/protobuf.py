"""The few lines of protobuf that `serve` needs to look into an ONNX file without the onnx package.

A message is a sequence of fields: a varint key (number << 3 | wire type), then a value. Field numbers below are those
of onnx.proto (ONNX 1.19, IR version 11); https://protobuf.dev/programming-guides/encoding/ gives the wire format.
"""

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_DEPTH = 64  # graphs in attributes in graphs ...; real models nest 2 or 3, protobuf's own limit is 100

# ModelProto
IR_VERSION, GRAPH, METADATA_PROPS = 1, 7, 14

# Where tensors can hide: message -> {field number: message of the field}.
CHILDREN = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION, LOCATION_EXTERNAL = 13, 14, 1


class ProtobufError(ValueError):
    """The bytes are not a well-formed message; `cut` says that they end in the middle of a field."""

    def __init__(self, text: str, cut: bool = False) -> None:
        super().__init__(text)
        self.cut = cut


class Field(NamedTuple):
    """One field of a message: `message[start:stop]` is the whole field, `value` an int or the bytes inside."""

    number: int
    value: int | memoryview
    start: int
    stop: int


def fields(message: memoryview) -> Iterator[Field]:
    """Yield the fields of one message in file order; ProtobufError where the bytes are no message."""
    position = 0
    while position < len(message):
        start = position
        key, position = _varint(message, position)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise ProtobufError(f"field number 0 at byte {start}")
        value: int | memoryview
        if wire == VARINT:
            value, position = _varint(message, position)
        elif wire in (BYTES, FIXED32, FIXED64):
            if wire == BYTES:
                length, position = _varint(message, position)
            else:
                length = 4 if wire == FIXED32 else 8
            value, position = message[position : position + length], position + length
            if position > len(message):
                raise ProtobufError(f"field {number} needs bytes up to {position}, there are {len(message)}", cut=True)
        else:
            raise ProtobufError(f"wire type {wire} at byte {start}")
        yield Field(number, value, start, position)


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return (value, next position) of the base-128 number that starts at `position`."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ProtobufError(f"number cut off at byte {position}", cut=True)
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ProtobufError(f"number longer than 10 bytes before byte {position}")


def encode_varint(value: int) -> bytes:
    """Return a non-negative int as base-128 bytes, low bits first."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_bytes(number: int, value: bytes) -> bytes:
    """Return a length-delimited field."""
    return encode_varint(number << 3 | BYTES) + encode_varint(len(value)) + value


def uses_external_data(model: bytes | memoryview) -> bool:
    """True where any tensor of the ModelProto, however nested, says that its data lies in another file."""
    return _external(memoryview(model), "model", 0)


def _external(message: memoryview, kind: str, depth: int) -> bool:
    if depth > MAX_DEPTH:
        raise ProtobufError(f"messages nest deeper than {MAX_DEPTH}")
    for field in fields(message):
        if kind == "tensor" and (
            field.number == TENSOR_EXTERNAL_DATA
            or (field.number == TENSOR_DATA_LOCATION and field.value == LOCATION_EXTERNAL)
        ):
            return True
        child = CHILDREN[kind].get(field.number)
        if child is None:
            continue
        if isinstance(field.value, int):
            raise ProtobufError(f"field {field.number} of a {kind} is a number, expected a {child}")
        if _external(field.value, child, depth + 1):
            return True
    return False
