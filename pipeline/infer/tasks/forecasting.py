"""Forecasting: the same forecast for each raw window."""

from __future__ import annotations

from typing import Any

import numpy as np
from convline.model_file.onnx_file import read_model_file
from convline.model_file.registry import variant_file_name

from pipeline.core.errors import StageError
from pipeline.infer.request import Request
from pipeline.infer.shipped_command import read_rows, run_infer
from pipeline.params.schema import ERROR_LIMIT


def serve(request: Request) -> dict[str, Any]:
    """Return the mean squared error of `infer series` on the raw files, and the check's.

    Served and checked may differ as far as stage check lets onnxruntime differ from torch.
    """
    name, output = request.name, request.output
    target, forecast = request.checked["target"], request.predictions  # (M, S, D) of raw windows
    columns = request.about["forecast"].get("columns", request.about["columns"])
    files = sorted(map(str, (request.data / "raw").glob("*.csv")))
    place = ["--device", request.device, "--engine", "onnxruntime", "-o", str(output)]
    run_infer(["series", str(request.package), *files, *place])
    rows = read_rows(output)
    ok = [row for row in rows if row["status"] in ("ok", "out-of-range")]
    if len(ok) != (expected_rows := target.shape[0] * target.shape[1]):
        raise StageError(f"{name}: infer predicted {len(ok)} rows of {expected_rows}; see {output}")
    fields = ["yhat"] if len(columns) == 1 else [f"yhat-{column}" for column in columns]
    served = np.array([[float(row[field]) for field in fields] for row in ok]).reshape(target.shape)
    target, expected = target.astype(np.float64), forecast.astype(np.float64)
    error, expected_error = (float(((f - target) ** 2).mean()) for f in (served, expected))
    atol = read_model_file(request.package / variant_file_name("fp32")).json["golden"]["atol"]
    # errors below what may differ are rounding, as of an exact forecast
    limit = atol**2 if expected_error < atol**2 else ERROR_LIMIT * expected_error
    close = abs(error - expected_error) <= limit
    return {
        "metric": "mse",
        "value": error,
        "expected": expected_error,
        "n": len(target),
        "rows_ok": len(ok),
        "rows_error": len(rows) - len(ok),
        "equal": close and bool(np.abs(served - expected).max() <= atol),
        "example": {
            "input": f"{ok[0]['unique_id']} at {ok[0]['ds']}",
            "output": f"{float(ok[0][fields[0]]):.4g}",
        },
    }
