"""`Model`: a model file on a device. `ImageModel` and `ForecastModel` are its two families."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from convline.errors import ModelFileError
from convline.model_file.document import Golden
from convline.model_file.onnx_file import ModelFile
from convline.runtime.engine import ONNXRUNTIME
from convline.runtime.session import translate_errors

Array = npt.NDArray[Any]
# By name the element type and the shape, in which None is a dynamic dimension.
Tensors = dict[str, tuple[str, list[int | None]]]
# Of the largest golden output: 8 times what fp16 files may differ, for 3 fraction bits fewer.
BF16_SHARE = 0.08
DTYPES = {"float": np.float32, "uint8": np.uint8, "int64": np.int64}  # of element types


class Model:
    """A model file, its session and its device; the graph is checked against the document."""

    def __init__(self, file: ModelFile, session: Any, device: str) -> None:
        self.file = file
        self.session = session
        self.device = device  # in words: "cpu (auto: no NVIDIA GPU is seen)"
        self.engine = ONNXRUNTIME  # what computes it
        self.variant = "as in the file"  # of a package, in words: "int8, recommended for cpu"
        self._check_signature()

    @property
    def kind(self) -> str:
        """The device that the session runs on, in one word."""
        return self.device.split()[0]

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def golden_atol(self) -> float:
        """The largest difference from the golden outputs: what the exporter allows, or in bf16 a
        share of them."""
        allowed = float(self.file.document.golden_json["atol"])
        if not self.engine.bf16:
            return allowed
        outputs = self.file.document.golden.outputs.values()
        return max(allowed, *(BF16_SHARE * float(np.abs(one).max(initial=0)) for one in outputs))

    def replay_golden(self) -> float:
        """Return the largest absolute difference of the outputs here from the golden outputs."""
        golden = self.file.document.golden
        for name, array in (outputs := self._replay(golden)).items():
            expected = golden.outputs[name]
            if array.shape != expected.shape:
                what = f"expected shape {expected.shape}, got {array.shape}"
                raise ModelFileError(
                    f"{self.name}: golden output {name!r}: {what}; export it again"
                )
        return self._difference(golden.outputs, outputs)

    def _replay(self, golden: Golden) -> dict[str, Array]:
        """Return by name what the golden outputs are here."""
        more = {} if golden.calendar is None else {"calendar": golden.calendar}
        outputs = self._run([*golden.outputs], golden.input, **more)
        return dict(zip(golden.outputs, outputs, strict=True))

    def _difference(self, expected: dict[str, Array], outputs: dict[str, Array]) -> float:
        """Return how far outputs are from the expected ones of the same shapes."""
        gaps = (
            np.abs(outputs[name] - array.astype(np.float64)) for name, array in expected.items()
        )
        return max(float(gap.max(initial=0.0)) for gap in gaps)

    def _inputs(self) -> Tensors:
        raise NotImplementedError

    def _outputs(self) -> Tensors:
        raise NotImplementedError

    def _check_signature(self) -> None:
        """Raise ModelFileError if names, types or shapes of the graph do not fit the document."""
        for kind, nodes, promised in (
            ("input", self.session.get_inputs(), self._inputs()),
            ("output", self.session.get_outputs(), self._outputs()),
        ):
            found = {node.name: node for node in nodes}
            extra = sorted({*found} - {*promised}) if kind == "input" else []
            if extra:
                raise self._misfit(f"the document has no input {extra[0]!r}")
            for name, (element, shape) in promised.items():
                if name not in found:
                    have = ", ".join(found) or "none"
                    raise self._misfit(f"expected graph {kind} {name!r}, got {have}")
                node = found[name]
                if node.type != f"tensor({element})" or not _fits(node.shape, shape):
                    wanted = f"{element} {['N' if n is None else n for n in shape]}"
                    expected = f"graph {kind} {name!r}: expected {wanted} as in the document"
                    raise self._misfit(f"{expected}, got {node.type} {node.shape}")

    def _misfit(self, what: str) -> ModelFileError:
        return ModelFileError(f"{self.file.path}: {what}; export it again")

    def _run(self, outputs: Sequence[str], batch: Array, **more: Array) -> list[Array]:
        """Return the outputs of a batch; an empty one is not run, because cuDNN refuses it."""
        if not len(batch):
            promised = self._outputs()
            return [empty_output(*promised[name]) for name in outputs]
        with translate_errors(self.name, f"a batch of {batch.shape}", self.engine.name):
            inputs = {next(iter(self._inputs())): batch, **more}
            return [*self.session.run([*outputs], inputs)]


def empty_output(element: str, shape: Sequence[int | None]) -> Array:
    """Return the array of an output for a batch of no samples: (0, ...)."""
    return np.empty((0, *(n or 0 for n in shape[1:])), DTYPES[element])


def _fits(actual: list[int | str | None], promised: list[int | None]) -> bool:
    """Return whether ranks agree, the batch is dynamic, and other sides are equal or dynamic.

    A side whose promise is None may have any length.
    """
    if len(actual) != len(promised) or isinstance(actual[0], int):
        return False
    return all(
        p is None or not isinstance(a, int) or a == p
        for a, p in zip(actual[1:], promised[1:], strict=True)
    )
