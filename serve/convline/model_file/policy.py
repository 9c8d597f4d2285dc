"""Which graphs onnxruntime is given: what a file of a stranger must not hold.

A model file may come from anywhere. No operator of it may load another file or library, and its
size in memory must follow from its size on disk.
"""

from convline.model_file import onnx_messages as onnx
from convline.model_file.wire import read_integers

# Operators of any other domain come from a library that would have to be loaded.
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
OPERATORS_REFUSED = ("EPContext",)  # it names a compiled engine or a library by its path
MAX_NODES = 100_000  # of all graphs together; the deepest int8 model of params.yaml has 2,199
MAX_RANK = 64  # of a tensor; onnxruntime's operators take at most 8
MAX_DIMENSION = 1_000_000  # of a graph's input; MAX_STEPS of schema.py, above its MAX_IMAGE_SIDE
ELEMENTS_PER_BYTE = 4  # of ONNX's narrowest type, 2 bits

DIMS = {"tensor": 1, "sparse": 3}  # the field that declares a tensor's shape
TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION, LOCATION_EXTERNAL = 13, 14, 1
DIMENSION_VALUE = 1


def refusal_reason(model: bytes | memoryview) -> str | None:
    """Return why a ModelProto must not be opened, as "expected ..., got ..."; None if it may.

    ProtobufError for bytes that are no ModelProto.
    """
    nodes = 0
    try:
        for message in onnx.walk_messages(memoryview(model)):
            nodes += message.kind == "node"
            if nodes > MAX_NODES:
                return f"expected at most {MAX_NODES:,} nodes, got more"
            if message.kind in CHECKS and (reason := CHECKS[message.kind](message)):
                return reason
    except onnx.TooManyFieldsError as error:
        return f"expected at most {error.limit:,} fields in all messages, got more"
    return None


def _refuse_node(message: onnx.Message) -> str | None:
    texts = {f.number: f.value for f in message.fields if not isinstance(f.value, int)}
    domain, operator = (
        str(texts.get(number, b""), errors="replace")
        for number in (onnx.NODE_DOMAIN, onnx.NODE_OPERATOR)
    )
    if domain not in DOMAINS:
        known = ", ".join(filter(None, DOMAINS))
        return f"expected operators of {known}, got {operator[:80]!r} of {domain[:80]!r}"
    if operator in OPERATORS_REFUSED:
        return f"expected operators that load no other file, got {operator}"
    return None


def _refuse_tensor(message: onnx.Message) -> str | None:
    """Refuse external data, and a declared shape that is larger than the data of the tensor."""
    elements, rank, size = 1, 0, len(message.bytes)
    for field in message.fields:
        external = field.number == TENSOR_DATA_LOCATION and field.value == LOCATION_EXTERNAL
        if message.kind == "tensor" and (external or field.number == TENSOR_EXTERNAL_DATA):
            return "expected weights inside the file, got external data"
        if field.number == DIMS[message.kind]:
            for side in read_integers(field.value):  # a negative one is 2^63 and more here
                elements, rank = min(elements * side, 2**63), rank + 1
                if rank > MAX_RANK:
                    return f"expected tensors of at most {MAX_RANK} dimensions, got more"
    if elements > ELEMENTS_PER_BYTE * size:
        got = f"{elements:,} elements in {size:,} bytes"
        return f"expected tensors of the size of their data, got {got}"
    return None


def _refuse_dimension(message: onnx.Message) -> str | None:
    for field in message.fields:
        value = field.value
        if field.number == DIMENSION_VALUE and isinstance(value, int) and value > MAX_DIMENSION:
            limit = f"at most {MAX_DIMENSION:,} in each dimension"
            return f"expected graph inputs of {limit}, got {value:,}"
    return None


CHECKS = {
    "node": _refuse_node,
    "tensor": _refuse_tensor,
    "sparse": _refuse_tensor,
    "dimension": _refuse_dimension,
}
