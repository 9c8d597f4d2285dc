"""A graph without some of its outputs.

A file may hold the gradient of a classifier, or the step of a forecaster, beside its predictions.
onnxruntime runs every node of a session, so a session on all of the file would make predictions
slower: ResNet-20 took 160 ms for 32 images with its gradient, 40 ms without.
"""

from collections.abc import Sequence

from convline.model_file.onnx_messages import (
    GRAPH,
    NAME_FIELD,
    NODE,
    NODE_INPUT,
    NODE_OUTPUT,
    OUTPUT,
    read_graph,
    read_names,
    walk_messages,
)
from convline.model_file.wire import encode_bytes, field_bytes, read_fields


def keep_outputs(model: bytes, outputs: Sequence[str]) -> bytes:
    """Return a ModelProto with these outputs and the parts of the graph that they need.

    model: one that `convline.model_file.policy` accepts.
    """
    return b"".join(
        encode_bytes(GRAPH, _keep_outputs(field_bytes(f), outputs))
        if f.number == GRAPH
        else model[f.start : f.stop]
        for f in read_fields(memoryview(model))
    )


def output_names(model: bytes) -> list[str]:
    """Return the names of a graph's outputs, in order."""
    outputs = (field_bytes(f) for f in read_fields(read_graph(model)) if f.number == OUTPUT)
    return [
        str(field_bytes(f), "utf-8", "replace")
        for output in outputs
        for f in read_fields(output)
        if f.number == NAME_FIELD[OUTPUT]
    ]


def _keep_outputs(graph: memoryview, outputs: Sequence[str]) -> bytes:
    """Return the GraphProto; its nodes are walked backwards, because ONNX sorts them."""
    kept_outputs = {name.encode() for name in outputs}
    needed, kept, fields = kept_outputs.copy(), set(), list(read_fields(graph))
    for field in reversed([f for f in fields if f.number == NODE]):
        if needed & read_names(field_bytes(field), NODE_OUTPUT):
            kept.add(field.start)
            # A loop's inner nodes read tensors of the outer graph, too.
            for message in walk_messages(field_bytes(field), "node"):
                if message.kind == "node":
                    needed |= read_names(message.bytes, NODE_INPUT)
    for field in fields:
        if field.number in NAME_FIELD:
            wanted = kept_outputs if field.number == OUTPUT else needed
            if wanted & read_names(field_bytes(field), NAME_FIELD[field.number]):
                kept.add(field.start)
        elif field.number != NODE:
            kept.add(field.start)
    return b"".join(graph[f.start : f.stop] for f in fields if f.start in kept)
