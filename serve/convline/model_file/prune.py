"""A graph without some of its outputs.

A file may hold the gradient of a classifier, or the step of a forecaster, beside its predictions.
onnxruntime runs every node of a session, so a session on all of the file would make predictions
slower: ResNet-20 took 160 ms for 32 images with its gradient, 40 ms without.
"""

from collections.abc import Sequence

from convline.model_file import onnx_messages as onnx
from convline.model_file.wire import encode_bytes, field_bytes, read_fields


def keep_outputs(model: bytes, outputs: Sequence[str]) -> bytes:
    """Return a ModelProto with these outputs and the parts of the graph that they need.

    model: one that `convline.model_file.policy` accepts.
    """
    return b"".join(
        encode_bytes(onnx.GRAPH, _keep_outputs(field_bytes(f), outputs))
        if f.number == onnx.GRAPH
        else model[f.start : f.stop]
        for f in read_fields(memoryview(model))
    )


def output_names(model: bytes) -> list[str]:
    """Return the names of a graph's outputs."""
    names = onnx.part_names(read_fields(onnx.read_graph(model)), onnx.OUTPUT)
    return sorted(str(name, "utf-8", "replace") for name in names)


def _keep_outputs(graph: memoryview, outputs: Sequence[str]) -> bytes:
    """Return the GraphProto; its nodes are walked backwards, because ONNX sorts them."""
    kept_outputs = {name.encode() for name in outputs}
    needed, kept, fields = kept_outputs.copy(), set(), list(read_fields(graph))
    for field in reversed([f for f in fields if f.number == onnx.NODE]):
        if needed & onnx.read_names(field_bytes(field), onnx.NODE_OUTPUT):
            kept.add(field.start)
            needed |= onnx.tensors_read(field_bytes(field))
    for field in fields:
        if field.number in onnx.NAME_FIELD:
            wanted = kept_outputs if field.number == onnx.OUTPUT else needed
            if wanted & onnx.read_names(field_bytes(field), onnx.NAME_FIELD[field.number]):
                kept.add(field.start)
        elif field.number != onnx.NODE:
            kept.add(field.start)
    return b"".join(graph[f.start : f.stop] for f in fields if f.start in kept)
