"""The part of a graph that some outputs need: onnxruntime runs every node, asked for or not.

The gradient in a file would make a prediction that does not look at it four times as slow (ResNet-20: 40 ms to 160 for
32 images), so predictions run on the rest, which is the graph as it would be without.
"""

from collections.abc import Sequence

from serve.protobuf import GRAPH, Field, encode_bytes, fields, messages

NODE, OUTPUT = 1, 12  # of a GraphProto; a node's names are in its fields 1, inputs, and 2, outputs
NAMED = {5: 8, 11: 1, OUTPUT: 1, 13: 1}  # initializers, inputs, outputs, inner values: the field that names each


def only(model: bytes, outputs: Sequence[str]) -> bytes:
    """Return a ModelProto that `serve.contract.read` let pass with these outputs alone, and what they need."""
    found = fields(memoryview(model))
    return b"".join(
        encode_bytes(GRAPH, _part(_inside(f), outputs)) if f.number == GRAPH else model[f.start : f.stop] for f in found
    )


def output_names(model: bytes) -> list[str]:
    """Return the names of a graph's outputs, in order."""
    graph = next(_inside(f) for f in fields(memoryview(model)) if f.number == GRAPH)
    outputs = (_inside(f) for f in fields(graph) if f.number == OUTPUT)
    return [str(_inside(f), "utf-8", "replace") for o in outputs for f in fields(o) if f.number == NAMED[OUTPUT]]


def _part(graph: memoryview, outputs: Sequence[str]) -> bytes:
    """Return the GraphProto with these outputs; its nodes are walked backwards, for ONNX sorts them."""
    asked = {name.encode() for name in outputs}
    needed, kept, found = asked.copy(), set(), list(fields(graph))
    for field in reversed([f for f in found if f.number == NODE]):
        if needed & _names(_inside(field), 2):
            kept.add(field.start)
            for kind, message in messages(_inside(field), "node"):  # a loop's inner nodes read from outside, too
                needed |= _names(message, 1) if kind == "node" else set()
    for field in found:
        if field.number in NAMED:
            wanted = asked if field.number == OUTPUT else needed
            kept |= {field.start} if wanted & _names(_inside(field), NAMED[field.number]) else set()
        elif field.number != NODE:
            kept.add(field.start)
    return b"".join(graph[f.start : f.stop] for f in found if f.start in kept)


def _names(message: memoryview, number: int) -> set[bytes]:
    return {bytes(_inside(f)) for f in fields(message) if f.number == number}


def _inside(field: Field) -> memoryview:
    assert isinstance(field.value, memoryview)
    return field.value
