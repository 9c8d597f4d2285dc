"""Run a session on tensors bound to its device, so that a batch is copied there once and its buffers are known.

The device is a value: on the CPU the same lines run, and tests execute them there.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
MEMORY = {"cpu": "cpu", "cuda": "cuda", "tensorrt": "cuda"}  # where the tensors of a device live


def bind_batch(session: Any, batch: Array, device: str, like: Sequence[Array] | None = None) -> Any:
    """Return an onnxruntime IOBinding: `batch` copied to the device's memory, the outputs to be allocated there.

    batch: of one sample or more; an empty one is answered without a session.
    like: arrays of the outputs' shapes and types; the outputs then keep their places, as a CUDA graph needs it.
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
    """Run on what is bound, and wait until the device is done; inputs and outputs stay where they are."""
    binding.synchronize_inputs()
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()


def copy_outputs(binding: Any) -> list[Array]:
    """Return the outputs of the last run, copied to the host, in the session's order."""
    return [np.asarray(array) for array in binding.copy_outputs_to_cpu()]


def pad_batch(batch: Array, to: int) -> Array:
    """Return the batch with its last row repeated up to `to` rows: engines with fixed shapes run whole buckets."""
    if not 0 < len(batch) <= to:
        raise ValueError(f"pad: expected 1 to {to} rows, got {len(batch)}; cut the batch first")
    return np.concatenate([batch, np.repeat(batch[-1:], to - len(batch), axis=0)])
