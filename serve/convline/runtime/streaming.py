"""`Stream`: a forecaster that takes one sample at a time, at constant cost, by its step graph.

Its state is one tail per layer: the newest inputs of that layer. Tails start at zero, so the first
forecasts rest on fewer samples than a full window. From the `samples`-th on they are equal.
"""

import numpy as np
import numpy.typing as npt

from convline.errors import InputError, ModelFileError
from convline.model_file.document import ForecasterDocument
from convline.model_file.onnx_file import ModelFile
from convline.runtime.model import empty_output
from convline.runtime.session import open_session, translate_errors

Floats = npt.NDArray[np.float32]
MAX_STATE = 2**24  # numbers that all tails of one series hold; ours are thousands


class Stream:
    """Stream(load("dilated-waves").file, "cpu").push([0.3])   # one sample in, one forecast out"""

    def __init__(self, file: ModelFile, device: str = "auto") -> None:
        self.name = file.name
        graph, document = file.step_graph, file.document
        if not isinstance(document, ForecasterDocument) or document.stream_samples is None:
            raise ModelFileError(f"{file.path}: expected a forecaster, got one for {file.task}")
        self.columns = len(document.input.columns)
        self._session = open_session(graph, device)
        self.samples = document.stream_samples  # after which it forecasts as from the full window
        shapes = {node.name: node.shape for node in self._session.get_overridable_initializers()}
        self._tails = {
            name: shape[1:] for name, shape in shapes.items() if name.startswith("state_")
        }
        outputs = [
            "step_forecast",
            "step_quantiles",
            *(name.replace("state_", "next_state_") for name in self._tails),
        ]
        whole = [type(n) is int for shape in self._tails.values() for n in shape]
        found = {node.name: node.shape for node in self._session.get_outputs()}
        if (
            not all(whole)
            or {*outputs} != {*found}
            or shapes.get("sample", [])[1:] != [self.columns]
        ):
            raise ModelFileError(
                f"{file.path}: its step graph does not fit its metadata; export it again"
            )
        if sum(int(np.prod(shape)) for shape in self._tails.values()) > MAX_STATE:
            raise ModelFileError(
                f"{file.path}: expected tails of at most {MAX_STATE} numbers; export it again"
            )
        self._outputs, self._answers = outputs, [found[name] for name in outputs[:2]]
        self.reset()

    def reset(self, count: int = 1) -> None:
        """Forget all samples; `count` series go side by side through `advance`."""
        self._state = {
            name: np.zeros((count, *shape), np.float32) for name, shape in self._tails.items()
        }
        self.seen = 0

    def fork(self) -> "Stream":
        """Return a stream of another series on the same session."""
        other = object.__new__(Stream)
        other.__dict__.update(self.__dict__)
        other.reset()
        return other

    def push(self, sample: npt.ArrayLike) -> tuple[Floats, Floats, bool]:
        """Return forecast (S, D'), quantiles (S, D', Q), and whether a full window gives the same.

        sample: (D,), in the units of the series. InputError if it is not D finite numbers; the
        state then stays as it was.
        """
        row = np.atleast_1d(np.asarray(sample, np.float64))
        if row.shape != (self.columns,) or not (np.abs(row) <= np.finfo(np.float32).max).all():
            raise InputError(
                self.name, f"expected {self.columns} finite numbers, got {row.tolist()!r:.80}"
            )
        forecast, quantiles = self.advance(row[None].astype(np.float32))
        return forecast[0], quantiles[0], self.seen >= self.samples

    def advance(self, rows: Floats) -> tuple[Floats, Floats]:
        """Return forecasts (N, S, D') and quantiles (N, S, D', Q) after rows (N, D) of N series."""
        if not len(rows):  # of no series; their tails are empty as well
            self.seen += 1
            forecast, quantiles = (empty_output("float", shape) for shape in self._answers)
            return forecast, quantiles
        with translate_errors(self.name, f"a step of {len(rows)} series"):
            forecast, quantiles, *tails = self._session.run(
                self._outputs, {"sample": rows, **self._state}
            )
        self._state = dict(zip(self._state, tails, strict=True))
        self.seen += 1
        return forecast, quantiles
