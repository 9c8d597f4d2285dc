"""Triton's own schema of a model's configuration, from its client without the gRPC parts."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any


def triton_message() -> Any:
    """Return an empty ModelConfig."""
    (folder,) = importlib.util.find_spec("tritonclient").submodule_search_locations
    spec = importlib.util.spec_from_file_location(
        "model_config_pb2", Path(folder, "grpc", "model_config_pb2.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelConfig()
