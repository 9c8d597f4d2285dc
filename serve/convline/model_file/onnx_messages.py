"""The messages of an ONNX file: their field numbers, and how they nest.

Source: onnx.proto of ONNX 1.19, IR version 11.
"""

from collections.abc import Iterable, Iterator
from itertools import count
from typing import NamedTuple, Self

from convline.model_file.wire import Field, ProtobufError, field_bytes, read_fields

IR_VERSION, GRAPH, METADATA_PROPS = 1, 7, 14  # fields of a ModelProto
NODE, INITIALIZER, INPUT, OUTPUT, VALUE_INFO = 1, 5, 11, 12, 13  # of a GraphProto
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OPERATOR, NODE_DOMAIN = 1, 2, 3, 4, 7  # of a NodeProto
NAME_FIELD = {INITIALIZER: 8, INPUT: 1, OUTPUT: 1, VALUE_INFO: 1}  # the name in a part of a graph

# Message -> {field number: the message in that field}. Only the first eight can hold a tensor.
CHILDREN = {
    "model": {GRAPH: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {
        NODE: "node", INITIALIZER: "tensor", INPUT: "value", OUTPUT: "named", VALUE_INFO: "named",
        15: "sparse",
    },
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
    "named": {},  # outputs and inner values; nested so that their fields are counted
}  # fmt: skip
MAX_DEPTH = 64  # graphs in attributes nest; real models have 2 or 3 levels, protobuf's limit is 100
MAX_FIELDS = 200_000  # of all messages together; the models of params.yaml have 379 to 45,000


class TooManyFieldsError(ProtobufError):
    """The messages have more than `limit` fields."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit:,} fields")
        self.limit = limit

    def __reduce__(self) -> tuple[type[Self], tuple[int]]:
        return type(self), (self.limit,)


class Message(NamedTuple):
    """One message: a key of CHILDREN, its bytes, and its fields in file order."""

    kind: str
    bytes: memoryview
    fields: list[Field]


def walk_messages(
    message: memoryview, kind: str = "model", depth: int = 0, counter: Iterator[int] | None = None
) -> Iterator[Message]:
    """Yield a message and all that nest in it, parents first.

    Memory is bounded: ProtobufError beyond MAX_DEPTH levels, TooManyFieldsError beyond MAX_FIELDS
    fields of all messages together (a field in memory takes 40 to 200 times its bytes).
    """
    if depth > MAX_DEPTH:
        raise ProtobufError(f"messages nest deeper than {MAX_DEPTH}")
    counter, found = counter or count(1), []
    for field in read_fields(message):
        if next(counter) > MAX_FIELDS:
            raise TooManyFieldsError(MAX_FIELDS)
        found.append(field)
    yield Message(kind, message, found)
    for field in found:
        child = CHILDREN[kind].get(field.number)
        if child is None:
            continue
        if isinstance(field.value, int):
            raise ProtobufError(f"field {field.number} of a {kind} is a number, expected a {child}")
        yield from walk_messages(field.value, child, depth + 1, counter)


def read_graph(model: bytes) -> memoryview:
    """Return the bytes of a model's GraphProto."""
    return next(field_bytes(f) for f in read_fields(memoryview(model)) if f.number == GRAPH)


def read_names(message: memoryview, number: int) -> set[bytes]:
    """Return the texts of a repeated field."""
    return {bytes(field_bytes(f)) for f in read_fields(message) if f.number == number}


def part_names(graph: Iterable[Field], number: int) -> set[bytes]:
    """Return the names of one kind of parts of a graph: a key of NAME_FIELD."""
    parts = (field_bytes(f) for f in graph if f.number == number)
    return {name for part in parts for name in read_names(part, NAME_FIELD[number])}


def tensors_read(node: memoryview) -> set[bytes]:
    """Return the tensors that a node reads; a loop's inner nodes read some of the outer graph."""
    nodes = (message for message in walk_messages(node, "node") if message.kind == "node")
    return {name for message in nodes for name in read_names(message.bytes, NODE_INPUT)}
