"""A real, tiny captioner: "a dark square" for a dark image, "a bright square" for a bright one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import tiny
from onnx import TensorProto, helper

WORDS = ["<start>", "<end>", "<unknown>", "a", "dark", "bright", "square"]
LONGEST = 5
# Logits of the next word (columns) after a word (rows); the state adds dark or bright.
NEXT = np.zeros((7, 7), np.float32)
for word, after in ((0, 3), (4, 6), (5, 6), (6, 1)):
    NEXT[word, after] = 20
SHADES = np.zeros((2, 7), np.float32)
SHADES[[0, 1], [4, 5]] = 8


def graph() -> onnx.ModelProto:
    """uint8 (N, 8, 16, 1) -> first_hidden, first_cell (N, 2); and the step in the same file."""
    nodes = [
        helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "white"], ["unit"]),
        helper.make_node("Unsqueeze", ["unit", "one"], ["bright"]),
        helper.make_node("Sub", ["full", "bright"], ["dark"]),
        helper.make_node("Concat", ["dark", "bright"], ["first_hidden"], axis=1),
        helper.make_node("Mul", ["first_hidden", "nothing"], ["first_cell"]),
        helper.make_node("Gather", ["next", "word"], ["known"], axis=0),
        helper.make_node("MatMul", ["hidden", "shades"], ["seen"]),
        helper.make_node("Add", ["known", "seen"], ["logits"]),
        helper.make_node("LogSoftmax", ["logits"], ["log_probabilities"], axis=1),
        helper.make_node("Identity", ["hidden"], ["next_hidden"]),
        helper.make_node("Identity", ["cell"], ["next_cell"]),
    ]
    constants = {
        "axes": np.array([1, 2, 3]), "white": np.float32(255), "one": np.array([1]),
        "full": np.float32(1), "nothing": np.float32(0), "next": NEXT, "shades": SHADES,
        "word": np.zeros(1, np.int64), "hidden": np.zeros((1, 2), np.float32), "cell": np.zeros((1, 2), np.float32),
    }  # fmt: skip
    value, state = helper.make_tensor_value_info, ["N", 2]
    inputs = [
        value("images", TensorProto.UINT8, ["N", *tiny.WIDE, 1]),
        value("word", TensorProto.INT64, ["N"]),
        value("hidden", TensorProto.FLOAT, state),
        value("cell", TensorProto.FLOAT, state),
    ]
    shapes = {"log_probabilities": ["N", 7]}
    names = ("first_hidden", "first_cell", "log_probabilities", "next_hidden", "next_cell")
    outputs = [value(name, TensorProto.FLOAT, shapes.get(name, state)) for name in names]
    return tiny.finish_graph(nodes, inputs, outputs, constants)


def document() -> dict[str, Any]:
    names = ("first_hidden", "first_cell", "log_probabilities")
    outputs = {
        name: np.zeros((3, 2), np.float32) for name in names
    }  # of a replay that no test runs
    caption = {"longest": LONGEST}
    return tiny.wide_document("captioning", outputs, words=WORDS, caption=caption)
