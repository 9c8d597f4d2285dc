"""Which provider runs which node of a session, and which nodes of a GPU session may be on the CPU.

If a node has no kernel on the GPU, onnxruntime runs it on the CPU without a warning and copies its
tensors back and forth. Two kinds of node are there on purpose: arithmetic on shapes, which the host
needs anyway, and trees and support vector machines (ai.onnx.ml), which have CPU kernels only.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from convline.model_file import onnx_messages as onnx
from convline.model_file.wire import field_bytes, read_fields

# The option without which a session keeps no account.
RECORD = "session.record_ep_graph_assignment_info"
CPU = "CPUExecutionProvider"
CPU_ALONE = "ai.onnx.ml"
SHAPES = (b"Shape", b"Size")


class Node(NamedTuple):
    """A node of the graph that a session runs, and the provider that it was given to."""

    provider: str
    domain: str
    operator: str
    name: str


def reports_placement(session: Any) -> bool:
    """Whether this onnxruntime tells where nodes run: 1.31.1 does."""
    return hasattr(session, "get_provider_graph_assignment_info")


def placed_nodes(session: Any) -> list[Node]:
    """Return the nodes of a session that was opened with RECORD, as they were when assigned."""
    return [
        Node(part.ep_name, node.domain, node.op_type, node.name)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]


def count_by_provider(session: Any) -> dict[str, int]:
    """Return how many nodes each provider runs."""
    return dict(Counter(node.provider for node in placed_nodes(session)))


def describe_placement(session: Any) -> str:
    """Return `count_by_provider` in words, with the operators of a GPU session on the CPU."""
    counts = ", ".join(f"{count} by {name}" for name, count in count_by_provider(session).items())
    left = cpu_nodes(session) if session.get_providers()[0] != CPU else []
    operators = ", ".join(dict.fromkeys(node.operator for node in left))
    return f"{counts} ({operators})" if left else counts


def cpu_nodes(session: Any) -> list[Node]:
    """Return the nodes that run on the CPU."""
    return [node for node in placed_nodes(session) if node.provider == CPU]


def allows_cuda_graph(session: Any) -> bool:
    """Return whether a run can be recorded as a CUDA graph: not with CPU_ALONE operators."""
    return all(node.domain != CPU_ALONE for node in cpu_nodes(session))


def unexpected_cpu_nodes(model: bytes, found: Iterable[Node]) -> list[Node]:
    """Return the CPU nodes that are neither arithmetic on shapes nor of CPU_ALONE."""
    own = [node for node in found if node.domain != CPU_ALONE]
    shapes = shape_node_names(model) if own else frozenset()
    return [node for node in own if node.name not in shapes]


def shape_node_names(model: bytes) -> frozenset[str]:
    """Return the names of a ModelProto's nodes that compute from shapes and constants alone."""
    parts = [*read_fields(onnx.read_graph(model))]
    # An initializer of an input's name is that input's default.
    constants = onnx.part_names(parts, onnx.INITIALIZER) - onnx.part_names(parts, onnx.INPUT)
    from_shapes: set[bytes] = set()  # tensors, as the next ones are nodes
    found: set[bytes] = set()
    others: set[bytes] = set()
    for node in (field_bytes(f) for f in parts if f.number == onnx.NODE):  # ONNX sorts them
        [operator] = onnx.read_names(node, onnx.NODE_OPERATOR)
        read = onnx.tensors_read(node) - constants - {b""}
        if operator == b"Constant":
            constants |= onnx.read_names(node, onnx.NODE_OUTPUT)
        elif operator in SHAPES or (read and read <= from_shapes):
            from_shapes |= onnx.read_names(node, onnx.NODE_OUTPUT)
            found |= onnx.read_names(node, onnx.NODE_NAME)
        else:
            others |= onnx.read_names(node, onnx.NODE_NAME)
    return frozenset(str(name, "utf-8", "replace") for name in found - others - {b""})
