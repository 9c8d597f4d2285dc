"""The protobuf walk, against the onnx package that it replaces."""

import numpy as np
import onnx
import pytest
import tiny
from onnx import TensorProto, helper, numpy_helper

from serve.protobuf import MAX_DEPTH, ProtobufError, encode_bytes, encode_varint, fields, uses_external_data


def external_tensor(name: str = "w") -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def test_fields_concatenate_to_the_message() -> None:
    """Oracle: the fields' spans tile the file, and their numbers are those that onnx says are set."""
    model = tiny.classifier_graph()
    raw = memoryview(model.SerializeToString())
    found = list(fields(raw))
    assert b"".join(raw[f.start : f.stop] for f in found) == raw
    assert {f.number for f in found} == {descriptor.number for descriptor, _ in model.ListFields()}


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31, 2**63])
def test_varint_round_trip(value: int) -> None:
    """Oracle: what is encoded is read back; 300 is AC 02 (protobuf.dev, encoding)."""
    [field] = fields(memoryview(encode_varint(1 << 3) + encode_varint(value)))
    assert field.value == value
    assert encode_varint(300) == b"\xac\x02"


@pytest.mark.parametrize(
    ("message", "cut"),
    [(b"\x3a\x05ab", True), (b"\x08", True), (b"\x08" + b"\xff" * 11, False), (b"\x0b", False), (b"\x00\x01", False)],
    ids=["bytes cut off", "number cut off", "number too long", "wire type 3", "field 0"],
)
def test_malformed_messages(message: bytes, cut: bool) -> None:
    """Oracle: hand-made bytes that break the wire format, told apart into cut off or not."""
    with pytest.raises(ProtobufError) as caught:
        list(fields(memoryview(message)))
    assert caught.value.cut is cut


def hide(place: str) -> onnx.ModelProto:
    """Return a model with an external tensor at the place."""
    model, tensor = tiny.classifier_graph(), external_tensor()
    branch = helper.make_graph([], "branch", [], [], [tensor])
    node = helper.make_node("If", ["c"], ["d"])
    if place == "initializer":
        model.graph.initializer.append(tensor)
    elif place == "sparse initializer":
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    elif place == "attribute":
        model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
    elif place == "list of tensors":
        node.attribute.append(helper.make_attribute("many", [tensor]))
        model.graph.node.append(node)
    elif place == "subgraph":
        node.attribute.append(helper.make_attribute("then_branch", branch))
        model.graph.node.append(node)
    elif place == "function":
        constant = helper.make_node("Constant", [], ["c"], value=tensor)
        model.functions.append(helper.make_function("ours", "F", [], ["c"], [constant], []))
    elif place == "training":
        model.training_info.add().algorithm.CopyFrom(branch)
    return model


@pytest.mark.parametrize(
    "place",
    ["initializer", "sparse initializer", "attribute", "list of tensors", "subgraph", "function", "training"],
)
def test_external_data_is_found_wherever_it_hides(place: str) -> None:
    """Oracle: each model is built by onnx.helper with one external tensor in that place."""
    assert uses_external_data(hide(place).SerializeToString())


def test_location_alone_counts_as_external() -> None:
    """Oracle: data_location = EXTERNAL without any entry is external by onnx.proto."""
    model = tiny.classifier_graph()
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    assert uses_external_data(model.SerializeToString())


@pytest.mark.parametrize("graph", [tiny.classifier_graph, tiny.forecaster_graph])
def test_ordinary_models_have_none(graph) -> None:
    """Oracle: these graphs hold their weights."""
    assert not uses_external_data(graph().SerializeToString())


def test_nesting_is_bounded() -> None:
    """Oracle: a graph in an attribute of a node of a graph ..., deeper than any protobuf reader allows."""
    message = b""
    for _ in range(MAX_DEPTH):
        message = encode_bytes(1, encode_bytes(5, encode_bytes(6, message)))
    with pytest.raises(ProtobufError, match="nest deeper"):
        uses_external_data(encode_bytes(7, message))
