"""The few lines of protobuf that `serve` needs to look into an ONNX file without the onnx package.

`fields` reads one message, `messages` finds those that nest in a ModelProto, `refusal` says what of them is refused
before onnxruntime sees the file.

A message is a sequence of fields: a varint key (number << 3 | wire type), then a value. Field numbers below are those
of onnx.proto (ONNX 1.19, IR version 11); https://protobuf.dev/programming-guides/encoding/ gives the wire format.
"""

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_DEPTH = (
    64  # graphs in attributes in graphs ...; real models nest 2 or 3, protobuf's own limit is 100
)

# ModelProto
IR_VERSION, GRAPH, METADATA_PROPS = 1, 7, 14

# What is looked into: message -> {field number: message of the field}. Tensors can hide in all but the last six.
CHILDREN = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 11: "value", 12: "named", 13: "named", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
    "value": {2: "type"},  # of a graph's inputs
    "type": {1: "tensor type"},
    "tensor type": {2: "shape"},
    "shape": {1: "dimension"},
    "dimension": {},
    "named": {},  # outputs and inner values: their names are read later, so their fields are counted
}
NODE_OPERATOR, NODE_DOMAIN, DIMENSION_VALUE = 4, 7, 1
DIMS = {"tensor": 1, "sparse": 3}  # field that declares the size
TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION, LOCATION_EXTERNAL = 13, 14, 1

# What is refused. Another domain needs a library of operators; EPContext names one, or a compiled engine, by its path.
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
OPERATORS_REFUSED = ("EPContext",)
MAX_NODES = 100_000  # of all graphs together; the deepest int8 net of params.yaml has 2,199
MAX_FIELDS = 200_000  # of all messages together; the nets of params.yaml have 379 to about 45,000
MAX_RANK = 64  # of a tensor; onnxruntime's operators take 8 or fewer
MAX_DIMENSION = 1_000_000  # of a graph's input: MAX_STEPS of serve/convline/model_file/schema.py, above MAX_IMAGE_SIDE
ELEMENTS_PER_BYTE = 4  # of ONNX's narrowest type, 2 bits


class ProtobufError(ValueError):
    """The bytes are not a well-formed message; `cut` says that they end in the middle of a field."""

    def __init__(self, text: str, cut: bool = False) -> None:
        super().__init__(text)
        self.cut = cut


class TooManyFieldsError(ProtobufError):
    """The messages have more than MAX_FIELDS fields."""


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
                raise ProtobufError(
                    f"field {number} needs bytes up to {position}, there are {len(message)}",
                    cut=True,
                )
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


class Message(NamedTuple):
    """One message: a key of CHILDREN, its bytes, and its fields in file order."""

    kind: str
    bytes: memoryview
    fields: list[Field]


def messages(
    message: memoryview, kind: str = "model", depth: int = 0, counter: Iterator[int] | None = None
) -> Iterator[Message]:
    """Yield a message and all that nest in it as CHILDREN says, parents first, with at most MAX_FIELDS fields."""
    if depth > MAX_DEPTH:
        raise ProtobufError(f"messages nest deeper than {MAX_DEPTH}")
    counter, found = counter or count(1), []
    for field in fields(message):  # each costs 40 to 200 times its bytes, known or not
        if next(counter) > MAX_FIELDS:
            raise TooManyFieldsError(f"more than {MAX_FIELDS:,} fields")
        found.append(field)
    yield Message(kind, message, found)
    for field in found:
        child = CHILDREN[kind].get(field.number)
        if child is None:
            continue
        if isinstance(field.value, int):
            raise ProtobufError(f"field {field.number} of a {kind} is a number, expected a {child}")
        yield from messages(field.value, child, depth + 1, counter)


def refusal(model: bytes | memoryview) -> str | None:
    """Return why a ModelProto is not given to onnxruntime, "expected ..., got ...", or None; ProtobufError as above."""
    nodes = 0
    try:
        for message in messages(memoryview(model)):
            nodes += message.kind == "node"
            if nodes > MAX_NODES:
                return f"expected at most {MAX_NODES:,} nodes, got more"
            if message.kind in CHECKS and (found := CHECKS[message.kind](message)):
                return found
    except TooManyFieldsError:
        return f"expected at most {MAX_FIELDS:,} fields in all messages, got more"
    return None


def _refuse_node(message: Message) -> str | None:
    parts = {f.number: f.value for f in message.fields if not isinstance(f.value, int)}
    domain, operator = (
        str(parts.get(n, b""), errors="replace") for n in (NODE_DOMAIN, NODE_OPERATOR)
    )
    if domain not in DOMAINS:
        return f"expected operators of {', '.join(filter(None, DOMAINS))}, got {operator[:80]!r} of {domain[:80]!r}"
    if operator in OPERATORS_REFUSED:
        return f"expected operators that onnxruntime computes, got {operator}, which may load other files"
    return None


def _refuse_tensor(message: Message) -> str | None:
    """A size that the bytes cannot hold is memory that the file does not pay for; true of sparse tensors as well."""
    elements, rank, size = 1, 0, len(message.bytes)
    for field in message.fields:
        external = field.number == TENSOR_DATA_LOCATION and field.value == LOCATION_EXTERNAL
        if message.kind == "tensor" and (external or field.number == TENSOR_EXTERNAL_DATA):
            return "expected weights inside the file, got external data"
        if field.number == DIMS[message.kind]:
            for side in _integers(field.value):
                elements, rank = (
                    min(elements * side, 2**63),
                    rank + 1,
                )  # a negative side is 2^63 and more here
                if rank > MAX_RANK:
                    return f"expected tensors of at most {MAX_RANK} dimensions, got more"
    if elements > ELEMENTS_PER_BYTE * size:
        return f"expected tensors of the size of their data, got {elements:,} elements in {size:,} bytes"
    return None


def _refuse_dimension(message: Message) -> str | None:
    for field in message.fields:
        if (
            field.number == DIMENSION_VALUE
            and isinstance(field.value, int)
            and field.value > MAX_DIMENSION
        ):
            return f"expected graph inputs of at most {MAX_DIMENSION:,} in each dimension, got {field.value:,}"
    return None


def _integers(value: int | memoryview) -> Iterator[int]:
    """Yield the numbers of a repeated field: one by one as fields, or packed into one."""
    if isinstance(value, int):
        yield value
        return
    position = 0
    while position < len(value):
        number, position = _varint(value, position)
        yield number


CHECKS = {
    "node": _refuse_node,
    "tensor": _refuse_tensor,
    "sparse": _refuse_tensor,
    "dimension": _refuse_dimension,
}
