"""What is to be served: one variant of an entry on one device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.paths import OUT


@dataclass(frozen=True)
class Request:
    """One variant of an entry on one device, and what stage check recorded for it.

    checked: the arrays of test.npz; predictions: those of this variant on this device.
    """

    name: str
    about: dict[str, Any]  # results/<entry>/data.json
    checked: dict[str, np.ndarray]
    predictions: np.ndarray
    device: str
    variant: str
    output: Path  # the JSON lines file of the answers

    @property
    def data(self) -> Path:
        return OUT / self.name / "data"

    @property
    def package(self) -> Path:
        return OUT / "dist" / self.name
