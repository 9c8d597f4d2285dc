"""Streaming: after as many samples as the file states, a step forecasts what a window does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import line
import numpy as np
import onnxruntime
import pytest
from convline.errors import InputError, ModelFileError
from convline.loading import load_file
from convline.model_file.onnx_file import ModelFile, read_model_file, seal
from convline.runtime.streaming import Stream
from convline.timeseries.forecaster import Forecaster
from shop import HORIZON, document, untrained

from pipeline.core.errors import StageError
from pipeline.export import graph as export
from pipeline.export import streaming_graph

Resolve = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        ({"linear": True}, "its linear path looks at the whole window"),
        ({"linear": False, "blocks": 5}, "its forecast depends on 32 samples, the window holds 14"),
    ],
)
def test_a_network_that_cannot_stream_is_refused(
    net: dict[str, Any], reason: str, of_shop: Resolve
) -> None:
    recipe = of_shop(net={"independent": False, "normalise": "none", **net})
    made, source = untrained(recipe)
    with pytest.raises(StageError, match=f"export: streaming: .*{reason}"):
        streaming_graph.export_with_step(made, source.served("test"))


@pytest.mark.parametrize("loss_name", ["mse", "pinball"])
def test_a_stream_equals_the_window(loss_name: str, of_shop: Resolve, tmp_path: Path) -> None:
    """The window through the same file, to 1e-5 of the deviation."""
    net = {
        "independent": False,
        "normalise": "none",
        "linear": False,
        "blocks": 3,
        "patch": 2,
    }  # 2 + 1 + 2 + 4 = 9
    recipe = of_shop(net=net, train={"loss": loss_name}, data={"targets": ["sales"]})
    net, source = untrained(recipe)
    graph, samples = streaming_graph.export_with_step(net, source.served("test"))
    assert samples == 9
    x = source.served("test")
    about = document(recipe, source, x, export.torch_outputs(net, x)) | {
        "stream": {"samples": samples}
    }
    path = tmp_path / "shop.onnx"
    path.write_bytes(seal(graph.SerializeToString(), about))
    model = load_file(path, "cpu")
    assert isinstance(model, Forecaster) and model.replay_golden() < about["golden"]["atol"]
    forecast, quantiles = model.run(x)
    stream = Stream(model.file, "cpu")
    other = stream.fork()
    for n, (row, beside) in enumerate(zip(x[0], x[1], strict=True), 1):
        got = stream.push(row)
        aside = other.push(beside)
        assert got[2] == (n >= 9)
    limit = 1e-5 * forecast.std() + 1e-6 * np.abs(x).max()
    for answer, k in ((got, 0), (aside, 1)):
        np.testing.assert_allclose(answer[0], forecast[k], rtol=0, atol=limit)
        np.testing.assert_allclose(answer[1], quantiles[k], rtol=0, atol=limit)
    with pytest.raises(InputError, match=r"expected 3 finite numbers, got \[1.0, nan, 2.0\]"):
        stream.push([1, np.nan, 2])
    np.testing.assert_array_equal(stream.push(x[0, -1])[0].shape, (HORIZON, 1))
    # the file runs on windows without the inputs of the stream
    plain = onnxruntime.InferenceSession(path.read_bytes()).run(["forecast"], {"series": x})[0]
    np.testing.assert_array_equal(plain, forecast)
    assert len(model.file.prediction_graph) < len(path.read_bytes()) and len(
        model.file.step_graph
    ) < len(path.read_bytes())


def test_a_file_without_a_step_graph_has_no_stream() -> None:
    model = read_model_file(Path(line.made(), line.model_path(line.WAVES)))
    assert (
        model.has_step_graph and Stream(model, "cpu").samples == 10
    )  # 1 + 2 (1 + 2), and the horizon less 1
    bare = ModelFile(
        model.path, {k: v for k, v in model.json.items() if k != "stream"}, model.content
    )
    with pytest.raises(
        ModelFileError, match=r"expected a step graph, got none; export it with `streaming: true`"
    ):
        Stream(bare, "cpu")


def test_stage_check_covers_the_stream() -> None:
    with line.inside(line.made()):
        (row,) = line.results(line.WAVES, "check")["streams"]
    assert row["limit"] > 0 and row["difference"] <= row["limit"]
