"""Reading protobuf messages without protobuf, compared with the onnx package."""

import re
import time

import numpy as np
import onnx
import pytest
import tiny
from convline.model_file.onnx_messages import MAX_DEPTH
from convline.model_file.policy import MAX_DIMENSION, MAX_NODES, refusal_reason
from convline.model_file.wire import ProtobufError, encode_bytes, encode_varint, read_fields
from hostile_graphs import hide, with_operator
from onnx import TensorProto, numpy_helper


def test_fields_concatenate_to_the_message() -> None:
    """The fields' bytes joined are the file, and their numbers are those that onnx says are set."""
    model = tiny.classifier_graph()
    raw = memoryview(model.SerializeToString())
    found = list(read_fields(raw))
    assert b"".join(raw[f.start : f.stop] for f in found) == raw
    assert {f.number for f in found} == {descriptor.number for descriptor, _ in model.ListFields()}


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31, 2**63])
def test_encoded_varints_are_read_back(value: int) -> None:
    """300 is AC 02 (protobuf.dev, encoding)."""
    [field] = read_fields(memoryview(encode_varint(1 << 3) + encode_varint(value)))
    assert field.value == value
    assert encode_varint(300) == b"\xac\x02"


@pytest.mark.parametrize(
    ("message", "cut"),
    [
        (b"\x3a\x05ab", True),
        (b"\x08", True),
        (b"\x08" + b"\xff" * 11, False),
        (b"\x0b", False),
        (b"\x00\x01", False),
    ],
    ids=["bytes cut off", "number cut off", "number too long", "wire type 3", "field 0"],
)
def test_malformed_messages_are_errors(message: bytes, cut: bool) -> None:
    """Hand-made bytes that break the wire format; the error says whether the message is truncated."""
    with pytest.raises(ProtobufError) as caught:
        list(read_fields(memoryview(message)))
    assert caught.value.truncated is cut


@pytest.mark.parametrize(
    "place",
    [
        "initializer",
        "sparse initializer",
        "attribute",
        "list of tensors",
        "subgraph",
        "function",
        "training",
    ],
)
def test_external_data_is_refused_in_every_place(place: str) -> None:
    """onnx.helper builds each model with one external tensor in that place."""
    assert (
        refusal_reason(hide(place).SerializeToString())
        == "expected weights inside the file, got external data"
    )


def test_location_alone_counts_as_external() -> None:
    """By onnx.proto, data_location = EXTERNAL without any entry is external, too."""
    model = tiny.classifier_graph()
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    assert "external data" in str(refusal_reason(model.SerializeToString()))


@pytest.mark.parametrize("graph", [tiny.classifier_graph, tiny.forecaster_graph])
def test_ordinary_models_are_not_refused(graph) -> None:
    """These graphs hold their weights, and onnx's checker has passed them."""
    assert refusal_reason(graph().SerializeToString()) is None


def test_deep_nesting_is_refused() -> None:
    """A graph in an attribute of a node of a graph, and so on, deeper than any protobuf reader
    allows.
    """
    message = b""
    for _ in range(MAX_DEPTH):
        message = encode_bytes(1, encode_bytes(5, encode_bytes(6, message)))
    with pytest.raises(ProtobufError, match="nest deeper"):
        refusal_reason(encode_bytes(7, message))


def with_weight(dims: list[int], data: bytes, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    model = tiny.classifier_graph()
    model.graph.initializer.append(TensorProto(name="w", data_type=kind, dims=dims, raw_data=data))
    return model


def with_sparse_weight(dims: list[int]) -> onnx.ModelProto:
    model = tiny.classifier_graph()
    sparse = model.graph.sparse_initializer.add(dims=dims)
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64), "i"))
    return model


def with_input_of(size: int) -> onnx.ModelProto:
    model = tiny.classifier_graph()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = size
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            with_operator("evil.example"),
            "expected operators of ai.onnx, .*, got 'Teleport' of 'evil.example'",
        ),
        (with_operator("com.microsoft", "EPContext"), "got EPContext"),
        (with_weight([1 << 20, 1 << 20], b"\0" * 16), "got 1,099,511,627,776 elements in "),
        (with_weight([-1], b"\0" * 16), "elements in"),
        (with_sparse_weight([1 << 20, 1 << 20]), "got 1,099,511,627,776 elements in "),
        (with_input_of(MAX_DIMENSION + 1), "at most 1,000,000 in each dimension, got 1,000,001"),
        (with_input_of(-2), "in each dimension, got 18,446,744"),
    ],
    ids=[
        "domain",
        "engine",
        "huge weight",
        "negative weight",
        "huge sparse weight",
        "huge input",
        "negative input",
    ],
)
def test_hostile_graphs_are_refused(model: onnx.ModelProto, message: str) -> None:
    """Each model is built by onnx and asks for one thing that none of our exports does."""
    assert re.search(message, str(refusal_reason(model.SerializeToString())))


def test_operators_and_weights_of_our_exports_are_accepted() -> None:
    """Heads use ai.onnx.ml and quantised files com.microsoft.

    A weight may be empty, and two values of 4 bits fill a byte.
    """
    for domain in ("", "ai.onnx", "ai.onnx.ml", "com.microsoft"):
        assert refusal_reason(with_operator(domain).SerializeToString()) is None
    for dims, data in (([0], b""), ([64, 64], bytes(64 * 64 * 4))):
        assert refusal_reason(with_weight(dims, data).SerializeToString()) is None
    assert (
        refusal_reason(with_weight([4000], bytes(1000), TensorProto.INT4).SerializeToString())
        is None
    )
    assert refusal_reason(with_input_of(MAX_DIMENSION).SerializeToString()) is None


def test_nodes_are_counted_over_all_graphs() -> None:
    """MAX_NODES nodes pass and one more does not; each is an empty message of two bytes."""
    node = encode_bytes(1, b"")
    half = encode_bytes(
        1, encode_bytes(5, encode_bytes(6, node * (MAX_NODES // 2)))
    )  # a graph inside an attribute
    assert refusal_reason(encode_bytes(7, half + node * (MAX_NODES // 2 - 1))) is None
    assert (
        refusal_reason(encode_bytes(7, half + node * (MAX_NODES // 2)))
        == "expected at most 100,000 nodes, got more"
    )


@pytest.mark.parametrize(
    "path", [(7,), (7, 1), (7, 1, 5), (7, 5), (7, 12), (7, 13), (7, 11, 2, 1, 2, 1), (25,), (20,)]
)
def test_fields_are_counted_over_all_messages(
    path: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown fields count in each kind of message that is read, half of them in each of two
    messages.
    """
    monkeypatch.setattr("convline.model_file.onnx_messages.MAX_FIELDS", 2 * (10 + len(path)))

    def model(unknown: int) -> bytes:
        message = (encode_varint(100 << 3) + b"\1") * unknown
        for number in reversed(path):
            message = encode_bytes(number, message)
        return message * 2

    assert refusal_reason(model(10)) is None
    assert (
        refusal_reason(model(11))
        == f"expected at most {2 * (10 + len(path))} fields in all messages, got more"
    )


@pytest.mark.parametrize("number", [100, 5], ids=["unknown", "attributes"])
def test_a_file_of_millions_of_empty_fields_is_refused_quickly(number: int) -> None:
    """8 MB of empty fields took 9 to 20 s before fields were bounded; now it takes half a second."""
    field = encode_varint(number << 3 | 2) + b"\0"
    started = time.perf_counter()
    assert "fields in all messages, got more" in str(
        refusal_reason(encode_bytes(7, encode_bytes(1, field * (2**22))))
    )
    assert time.perf_counter() - started < 8


def test_tensors_of_many_dimensions_are_refused() -> None:
    """64 dimensions of 1 pass, packed or not, and 65 do not; 8 MB of them took 2.4 s."""
    for rank, refused in ((64, False), (65, True), (2**23, True)):
        tensor = encode_bytes(1, b"\1" * rank) + encode_bytes(9, b"\0\0\0\0")
        found = refusal_reason(encode_bytes(7, encode_bytes(5, tensor)))
        assert found == ("expected tensors of at most 64 dimensions, got more" if refused else None)
    assert "64 dimensions" in str(
        refusal_reason(with_weight([1] * 65, b"\0" * 4).SerializeToString())
    )


def test_packed_dimensions_are_checked() -> None:
    """2^20 x 2^20 is written as one packed field, which readers of protobuf must accept."""
    size = encode_varint(1 << 20)
    tensor = encode_bytes(1, size * 2) + encode_bytes(9, b"\0\0\0\0")
    assert "1,099,511,627,776 elements" in str(
        refusal_reason(encode_bytes(7, encode_bytes(5, tensor)))
    )
