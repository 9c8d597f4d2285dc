"""Graphs that a model file must not hold."""

import numpy as np
import onnx
import tiny
from onnx import TensorProto, helper, numpy_helper


def external_tensor(name: str = "w") -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def hide(place: str) -> onnx.ModelProto:
    """Return a model with an external tensor in the given place."""
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


def with_operator(domain: str, operator: str = "Teleport") -> onnx.ModelProto:
    """Return a model with one more node, inside a branch, of an operator of that domain."""
    model = tiny.classifier_graph()
    branch = helper.make_graph(
        [helper.make_node(operator, [], ["x"], domain=domain)], "branch", [], []
    )
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=branch))
    return model
