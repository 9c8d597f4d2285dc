"""A model file opened on a device: `load` gives a Classifier or a Forecaster, checked against its own contract."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from serve import contract as contracts
from serve.contract import Contract
from serve.errors import InputError, ModelFileError, ServeError
from serve.image import ImageRule, read_image
from serve.machine import usable_cores
from serve.reading import Reading
from serve.series import Table
from serve.session import describe_device, open_session, session_errors
from serve.workers import batched, threads

Array = npt.NDArray[Any]
ImageLike = str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[np.uint8]
BATCH = 32  # images that predict_proba runs at once
Tensors = dict[str, tuple[str, list[int | None]]]  # name -> (element type, shape; None is a dynamic dimension)
Floats = npt.NDArray[np.float32]
Given = str | Path | Table | npt.ArrayLike

WINDOWS_PER_RUN = 64


class _Model:
    """What both kinds share: the contract, the session, its device, and the golden samples."""

    def __init__(self, contract: Contract, session: Any, device: str) -> None:
        self.contract = contract
        self.session = session
        self.device = device  # in words: "cpu (auto: no NVIDIA GPU seen)"
        self._check_signature()

    @property
    def kind(self) -> str:
        """The device that the session runs on, in one word."""
        return self.device.split()[0]

    @property
    def name(self) -> str:
        return self.contract.name

    @property
    def golden_atol(self) -> float:
        """The largest difference from the golden outputs that the exporter allows."""
        return float(self.contract.document["golden"]["atol"])

    def replay_golden(self) -> float:
        """Return the largest absolute difference of this provider's answer from the golden outputs."""
        golden = self.contract.document["golden"]
        expected = {name: contracts.unpack(packed) for name, packed in golden["outputs"].items()}
        got = self._run([*expected], contracts.unpack(golden["input"]))
        for name, array in zip(expected, got, strict=True):
            if array.shape != expected[name].shape:
                shapes = f"{expected[name].shape}, got {array.shape}"
                raise ModelFileError(f"{self.name}: golden output {name!r}: expected shape {shapes}; export it again")
        gaps = [np.abs(a.astype(np.float64) - b) for a, b in zip(got, expected.values(), strict=True)]
        return max(float(gap.max(initial=0.0)) for gap in gaps)

    def _inputs(self) -> Tensors:
        raise NotImplementedError

    def _outputs(self) -> Tensors:
        raise NotImplementedError

    def _check_signature(self) -> None:
        """Raise ModelFileError where names, types or dimensions of the graph are not those of the contract."""
        for kind, nodes, promised in (
            ("input", self.session.get_inputs(), self._inputs()),
            ("output", self.session.get_outputs(), self._outputs()),
        ):
            found = {node.name: node for node in nodes}
            if kind == "input" and {*found} - {*promised}:
                extra = sorted({*found} - {*promised})[0]
                raise ModelFileError(f"{self.contract.path}: the contract has no input {extra!r}; export it again")
            for name, (element, shape) in promised.items():
                if name not in found:
                    have = ", ".join(found) or "none"
                    raise ModelFileError(
                        f"{self.contract.path}: expected graph {kind} {name!r}, got {have}; export it again"
                    )
                node = found[name]
                if node.type != f"tensor({element})" or not _fits(node.shape, shape):
                    wanted = f"{element} {['N' if n is None else n for n in shape]}"
                    raise ModelFileError(
                        f"{self.contract.path}: graph {kind} {name!r}: expected {wanted} as the contract says, "
                        f"got {node.type} {node.shape}; export it again"
                    )

    def _run(self, outputs: Sequence[str], batch: Array, **more: Array) -> list[Array]:
        try:
            return list(self.session.run(list(outputs), {next(iter(self._inputs())): batch, **more}))
        except session_errors() as error:
            reason = " ".join(str(error).split())[:300]
            raise ServeError(f"{self.name}: onnxruntime cannot run a batch of {batch.shape} ({reason})") from error


class Classifier(_Model):
    """load("lenet5.onnx").predict(["a.png", image])   # labels (N,); predict_proba gives float32 (N, K)"""

    @property
    def labels(self) -> list[str]:
        return self.contract.labels

    @property
    def rule(self) -> ImageRule:
        return ImageRule.from_dict(self.contract.document["input"])

    def predict(self, images: ImageLike | Iterable[ImageLike]) -> npt.NDArray[np.str_]:
        """Return the most probable label of each image, (N,); `predict_proba` says what an image may be."""
        return np.asarray(np.array(self.labels)[self.predict_proba(images).argmax(axis=1)])

    def predict_proba(self, images: ImageLike | Iterable[ImageLike]) -> npt.NDArray[np.float32]:
        """Return probabilities float32 (N, K) in the order of `labels`.

        One image or many, each a path, the bytes of a file, a Pillow image or uint8 (H, W) or (H, W, 3) of any size;
        N is 1 for one. Or uint8 (N, H, W, C) of the model's own size, which is run as it is. InputError names the
        first image that cannot be read.
        """
        if isinstance(images, np.ndarray) and images.ndim == 4:
            return self._probabilities(images)
        rule, one = self.rule, isinstance(images, str | os.PathLike | bytes | Image.Image | np.ndarray)
        found = [np.empty((0, len(self.labels)), np.float32)]
        many = cast("Iterable[ImageLike]", [images] if one else images)
        with threads(usable_cores()) as pool:
            for group in batched(many, BATCH):
                found.append(self._probabilities(np.stack(list(pool.map(lambda picture: _read(picture, rule), group)))))
        return np.concatenate(found)

    def _probabilities(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        expected = (*self.rule.size, self.rule.channels)
        if batch.dtype != np.uint8 or batch.shape[1:] != expected:
            raise ValueError(f"predict_proba: expected uint8 (N, {expected}), got {batch.dtype} {batch.shape}")
        return np.asarray(self._run(["probabilities"], batch)[0])

    def _inputs(self) -> Tensors:
        return {"images": ("uint8", [None, *self.rule.size, self.rule.channels])}

    def _outputs(self) -> Tensors:
        return {"probabilities": ("float", [None, len(self.labels)])}


class Forecaster(_Model):
    """load("dilated.onnx").predict("history.csv", horizon=24)   # -> float32 (N, 24, D), one forecast per series

    Besides a path (read by the contract's rule), `predict` and `predict_quantiles` take a serve.series.Table, or an
    array (T', D), (N, T', D), or (T',) where D is 1, with T' >= `context`: the last `context` rows are used.
    """

    @property
    def context(self) -> int:
        """Rows that the network reads, T."""
        return int(self.contract.document["input"]["context"])

    @property
    def columns(self) -> list[str]:
        return list(self.contract.document["input"]["columns"])

    @property
    def horizon(self) -> int:
        """Rows that one run answers, S."""
        return int(self.contract.document["forecast"]["horizon"])

    @property
    def quantiles(self) -> list[float]:
        return list(self.contract.document["forecast"]["quantiles"])

    def predict(self, given: Given, horizon: int | None = None) -> Floats:
        """Return the forecast (N, horizon, D) in the units given; beyond the trained horizon it is fed back."""
        return self._forecast(given, horizon)[0]

    def predict_quantiles(self, given: Given, horizon: int | None = None) -> Floats:
        """Return the quantiles (N, horizon, D, Q), nan beyond the trained horizon: none were trained there."""
        return self._forecast(given, horizon)[1]

    def run(self, values: npt.NDArray[np.floating[Any]], horizon: int | None = None) -> tuple[Floats, Floats]:
        """Return forecast (N, S, D) and quantiles (N, S, D, Q), float32 in the units of `values` (N, T, D).

        Beyond the trained horizon the forecast is fed back as if it had been observed. Quantiles are nan there: they
        would ignore the forecast's own error.
        """
        expected = (self.context, len(self.columns))
        if values.shape[1:] != expected:
            raise ValueError(f"run: expected values (N, {expected}), got {values.shape}")
        with np.errstate(over="ignore"):  # beyond float32 is inf, which the caller's finite check names
            recent = values.astype(np.float32)
        forecast, quantiles = self._run(["forecast", "quantiles"], recent)
        steps = self.horizon if horizon is None else horizon
        parts = [forecast]
        for _ in range(self.horizon, steps, self.horizon):
            recent = np.concatenate([recent, parts[-1]], axis=1)[:, -self.context :]
            parts.append(self._run(["forecast"], recent)[0])
        unknown = np.full((len(values), max(steps - self.horizon, 0), *quantiles.shape[2:]), np.nan, np.float32)
        return np.concatenate(parts, axis=1)[:, :steps], np.concatenate([quantiles, unknown], axis=1)[:, :steps]

    def window(self, name: str, values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
        """Return the last rows (T, D) of one series (T', D); InputError, naming it, where the network cannot run."""
        window, columns = values[-self.context :], len(self.columns)
        if values.ndim != 2 or values.shape[1] != columns:
            raise InputError(name, f"model {self.name!r} needs rows of {columns} columns, got shape {values.shape}")
        if len(window) < self.context:
            needs = f"{self.context} rows of {columns} columns, got {len(values)} rows"
            raise InputError(name, f"model {self.name!r} needs {needs}")
        limit = float(np.finfo(np.float32).max)
        if not (np.abs(window) <= limit).all():
            raise InputError(name, f"expected finite values up to {limit:.6g} (float32), got others")
        return window

    def _forecast(self, given: Given, horizon: int | None) -> tuple[Floats, Floats]:
        windows = np.stack(list(self._windows(given)))  # (N, T, D)
        starts = range(0, len(windows), WINDOWS_PER_RUN)
        parts = [self.run(windows[start : start + WINDOWS_PER_RUN], horizon) for start in starts]
        forecasts, quantiles = zip(*parts, strict=True)
        return np.concatenate(forecasts), np.concatenate(quantiles)

    def _windows(self, given: Given) -> Iterator[npt.NDArray[np.floating[Any]]]:
        """Yield the window (T, D) of each series."""
        if isinstance(given, str | Path):
            given = Reading(self.name, self.contract.document["input"]).read(given)
        if isinstance(given, Table):
            yield from (self.window(series.id, series.values) for series in given.series)
            return
        array = np.asarray(given, dtype=np.float64)
        array = array[:, None] if array.ndim == 1 else array
        yield from (self.window(f"series {n}", one) for n, one in enumerate(array if array.ndim == 3 else array[None]))

    def _inputs(self) -> Tensors:
        return {"series": ("float", [None, self.context, len(self.columns)])}

    def _outputs(self) -> Tensors:
        shape = [None, self.horizon, len(self.columns)]
        return {"forecast": ("float", shape), "quantiles": ("float", [*shape, len(self.quantiles)])}


def _read(picture: ImageLike, rule: ImageRule) -> npt.NDArray[np.uint8]:
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,), (4,)):
            expected = "uint8 (H, W), (H, W, 3) or (H, W, 4)"
            raise InputError("image array", f"expected {expected}, got {picture.dtype} {picture.shape}")
        picture = Image.fromarray(picture)
    return read_image(os.fspath(picture) if isinstance(picture, os.PathLike) else picture, rule)


def load(path: str | Path, device: str = "auto", *, sha256: str | None = None) -> Classifier | Forecaster:
    """Open a model file: ModelFileError where it cannot be trusted, DeviceError where the device is not there."""
    contract = contracts.read(path, sha256)
    return wrap(contract, open_session(contract.served, device), device)


def wrap(contract: Contract, session: Any, device: str) -> Classifier | Forecaster:
    """Return the model of a session that was opened on the contract's bytes for a device."""
    described = describe_device(session, device)
    try:
        kind = Classifier if contract.task == "classification" else Forecaster
        return kind(contract, session, described)
    except ValueError as error:
        raise ModelFileError(f"{contract.path}: metadata key 'input': {error}; export the model again") from error


def _fits(actual: list[int | str | None], promised: list[int | None]) -> bool:
    """True where ranks agree, the batch is dynamic, and every other dimension is equal or dynamic."""
    if len(actual) != len(promised) or isinstance(actual[0], int):
        return False
    return all(not isinstance(a, int) or a == p for a, p in zip(actual[1:], promised[1:], strict=True))
