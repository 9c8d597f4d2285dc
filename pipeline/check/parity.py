"""Parity: how far the answers of a model file are from torch's, on real and on random input, at several batch sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
from convline.model_file.onnx_file import ModelFile
from convline.runtime.session import open_session
from convline.runtime.streaming import Stream

from pipeline.check.latency import Model, predict
from pipeline.core.errors import StageError

ROUNDED = (
    2.0**-14
)  # relative: TF32 is 2^-12 off on the numbers of `rounding`, sums of float32 in any order 1e-6
ROWS_AT_BATCH = {
    0: 0,
    1: 8,
    7: 22,
    256: None,
}  # batch empty, 1, odd (with a rest), large; rows tried on, None: all


def parity(
    model: Model,
    place: dict[str, str],
    x: dict[str, np.ndarray],
    torch_says: dict[str, list[np.ndarray]],
    usual: float,
    limit: float | None,
) -> list[dict[str, Any]]:
    """Return a row for each kind of input and batch size (0, 1, odd, large): the differences from torch's answers.

    place: the provider and the variant; limit: the largest difference, None where accuracy alone decides.
    """
    rows = []
    for kind, inputs in x.items():
        for batch, most in ROWS_AT_BATCH.items():
            count = len(inputs) if most is None else min(len(inputs), most)
            got = predict(model, inputs[:count], max(batch, 1))
            facts = compare(got, torch_says[kind], count, usual)
            passed = facts["finite"] and (limit is None or facts["max_difference"] <= limit)
            rows.append(
                {
                    **place,
                    "input": kind,
                    "batch": batch,
                    "n": count,
                    **facts,
                    "limit": limit,
                    "passed": passed,
                }
            )
    return rows


def compare(
    got: list[np.ndarray], expected: list[np.ndarray], count: int, usual: float = 1e-4
) -> dict[str, Any]:
    """Return the largest difference, also as a share of the largest answer, the mean, the worst row, top-1 agreement.

    Differences are taken over finite values, so that they are numbers in JSON; `finite` says whether that is all. Of an
    empty batch the shapes are compared, which is all there is.
    """
    for g, e in zip(got, expected, strict=True):
        if g.shape != (count, *e.shape[1:]):
            raise StageError(
                f"check: expected answers of shape {(count, *e.shape[1:])}, got {g.shape}; export again"
            )
    if not count:
        same = {"beyond": 0, "top1_agreement": 1.0} if got[0].ndim == 2 else {}
        return {
            "finite": True,
            "max_difference": 0.0,
            "relative": 0.0,
            "mean_difference": 0.0,
            "worst_row": 0,
            **same,
        }
    gaps = [
        np.abs(g.astype(np.float64) - e[:count]).reshape(count, -1)
        for g, e in zip(got, expected, strict=True)
    ]
    finite = all(np.isfinite(gap).all() for gap in gaps)
    worst = np.max([gap.max(1) for gap in gaps], axis=0)
    largest = float(np.where(np.isfinite(worst), worst, 0).max())
    facts: dict[str, Any] = {
        "finite": finite,
        "max_difference": largest,
        "relative": largest / (max(float(np.abs(e[:count]).max()) for e in expected) or 1.0),
        "mean_difference": float(
            np.mean([gap[np.isfinite(gap)].mean() if finite else 0.0 for gap in gaps])
        ),
        "worst_row": int(np.where(np.isfinite(worst), worst, np.inf).argmax()),
    }
    if got[0].ndim == 2:
        facts["beyond"] = int(
            (worst > usual).sum()
        )  # rows of a forest where a feature on a split's edge flipped it
        facts["top1_agreement"] = float((got[0].argmax(1) == expected[0][:count].argmax(1)).mean())
    return facts


def streaming(contract: ModelFile, device: str, x: np.ndarray, whole: np.ndarray) -> float:
    """Return the largest difference of a stream's answer from those to whole windows x (M, T, D), after `samples`."""
    stream = Stream(contract, device)
    stream.reset(len(x))
    for t in range(x.shape[1] - stream.samples, x.shape[1]):
        forecast, _ = stream.advance(np.ascontiguousarray(x[:, t]))
    return float(np.abs(forecast.astype(np.float64) - whole).max())


def rounding(device: str) -> float:
    """Return the largest relative error of a convolution and a product of float32 numbers that TF32 would round.

    1 + 2^-12 takes 12 bits behind the point. TF32 has 10 and makes it 1; float32 keeps it, and the sums exact.
    """
    from onnx import TensorProto, helper, numpy_helper

    images, rows = (8, 64, 16, 16), (256, 256)
    given = {
        name: np.full(shape, 1 + 2.0**-12, np.float32)
        for name, shape in (("images", images), ("rows", rows))
    }
    ones = {"filters": (64, 64, 3, 3), "columns": (256, 256)}
    nodes = [
        helper.make_node("Conv", ["images", "filters"], ["a"]),
        helper.make_node("MatMul", ["rows", "columns"], ["b"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name, x in given.items()
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("a", "b")]
    weights = [
        numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in ones.items()
    ]
    graph = helper.make_graph(nodes, "rounding", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    convolved, product = open_session(model.SerializeToString(), device).run(None, given)
    sums = {64 * 9: convolved, 256: product}
    return max(float(np.abs(got / (n * (1 + 2.0**-12)) - 1).max()) for n, got in sums.items())
