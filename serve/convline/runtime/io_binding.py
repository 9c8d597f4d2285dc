"""Run a session on tensors that are bound to its device, so that a batch is copied there once.

The same code runs on the CPU, where the tests run it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
MEMORY = {"cpu": "cpu", "cuda": "cuda", "tensorrt": "cuda"}  # where the tensors of a device live


def bind_batch(session: Any, batch: Array, device: str, like: Sequence[Array] | None = None) -> Any:
    """Return an onnxruntime IOBinding with `batch` and the outputs in the device's memory.

    batch: one sample or more; ValueError for an empty one.
    like: arrays of the outputs' shapes and types. The outputs then keep their addresses, which a
    CUDA graph needs.
    """
    import onnxruntime

    if not len(batch):
        raise ValueError(
            "bind: expected a batch of one sample or more, got none; answer it without the session"
        )
    place, binding = MEMORY[device], session.io_binding()
    value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(batch), place, 0)
    binding.bind_ortvalue_input(session.get_inputs()[0].name, value)
    for k, output in enumerate(session.get_outputs()):
        if like is None:
            binding.bind_output(output.name, place, 0)
        else:
            kept = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                list(like[k].shape), like[k].dtype, place, 0
            )
            binding.bind_ortvalue_output(output.name, kept)
    return binding


def run_bound(session: Any, binding: Any) -> None:
    """Run on the bound tensors, and wait until the device has finished."""
    binding.synchronize_inputs()
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()


def copy_outputs(binding: Any) -> list[Array]:
    """Return the outputs of the last run, copied to the host, in the session's order."""
    return [np.asarray(array) for array in binding.copy_outputs_to_cpu()]


def pad_batch(batch: Array, to: int) -> Array:
    """Return the batch with its last row repeated up to `to` rows, for engines of a fixed shape."""
    if not 0 < len(batch) <= to:
        raise ValueError(f"pad: expected 1 to {to} rows, got {len(batch)}; cut the batch first")
    return np.concatenate([batch, np.repeat(batch[-1:], to - len(batch), axis=0)])
