"""The part of a graph that some outputs need: onnxruntime runs every node, asked for or not.

The gradient in a file would make a prediction that does not look at it four times as slow (ResNet-20: 40 ms to 160 for
32 images), so predictions run on the rest, which is the graph as it would be without.
"""

from collections.abc import Sequence

from convline.model_file.wire import GRAPH, Field, encode_bytes, fields, messages

NODE, INITIALIZER, INPUT, OUTPUT = (
    1,
    5,
    11,
    12,
)  # of a GraphProto; a node's fields 1 and 2 name inputs and outputs
NAMED = {
    INITIALIZER: 8,
    INPUT: 1,
    OUTPUT: 1,
    13: 1,
}  # the field that names each; 13 are inner values


def only(model: bytes, outputs: Sequence[str]) -> bytes:
    """Return a ModelProto that `convline.model_file.document.read` let pass with these outputs alone, and what they need."""
    found = fields(memoryview(model))
    return b"".join(
        encode_bytes(GRAPH, _part(inside(f), outputs))
        if f.number == GRAPH
        else model[f.start : f.stop]
        for f in found
    )


def output_names(model: bytes) -> list[str]:
    """Return the names of a graph's outputs, in order."""
    graph = next(inside(f) for f in fields(memoryview(model)) if f.number == GRAPH)
    outputs = (inside(f) for f in fields(graph) if f.number == OUTPUT)
    return [
        str(inside(f), "utf-8", "replace")
        for o in outputs
        for f in fields(o)
        if f.number == NAMED[OUTPUT]
    ]


def _part(graph: memoryview, outputs: Sequence[str]) -> bytes:
    """Return the GraphProto with these outputs; its nodes are walked backwards, for ONNX sorts them."""
    asked = {name.encode() for name in outputs}
    needed, kept, found = asked.copy(), set(), list(fields(graph))
    for field in reversed([f for f in found if f.number == NODE]):
        if needed & names(inside(field), 2):
            kept.add(field.start)
            for message in messages(
                inside(field), "node"
            ):  # a loop's inner nodes read from outside, too
                needed |= names(message.bytes, 1) if message.kind == "node" else set()
    for field in found:
        if field.number in NAMED:
            wanted = asked if field.number == OUTPUT else needed
            kept |= {field.start} if wanted & names(inside(field), NAMED[field.number]) else set()
        elif field.number != NODE:
            kept.add(field.start)
    return b"".join(graph[f.start : f.stop] for f in found if f.start in kept)


def names(message: memoryview, number: int) -> set[bytes]:
    """Return the texts of a repeated field."""
    return {bytes(inside(f)) for f in fields(message) if f.number == number}


def inside(field: Field) -> memoryview:
    assert isinstance(field.value, memoryview)
    return field.value
