"""Recipes that train in a second, in the form of params.yaml, and the folder of the repository."""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# As in params.yaml, but small: 3 epochs are enough to see a loss fall.
IMAGE_RECIPE = {
    "arch": "fcnn",
    "data": {"set": "digits", "size": [8, 8], "colour": "grey"},
    "net": {"hidden": [16], "dropout": 0.2},
    "train": {"epochs": 3, "batch": 64, "lr": 0.01},
}
SERIES_RECIPE = {
    "arch": "causal",
    "data": {"set": "waves", "context": 32, "horizon": 4, "stride": 2},
    "net": {"channels": 4, "kernel_size": 3, "dilations": [1, 2], "activation": "none"},
    "train": {"epochs": 3, "batch": 32, "lr": 0.01},
}
SETS = {
    "digits": {"source": "digits", "validation": 100, "test": 1297},
    "waves": {
        "source": "waves",
        "train": 60,
        "validation": 40,
        "test": 20,
        "length": 60,
        "season": 14,
    },
}

# Digits 0 to 4 as the source task, a dozen images of three others as the target.
LOW = {"source": "digits", "validation": 100, "test": 200, "classes": ["0", "1", "2", "3", "4"]}
HIGH = {
    "source": "digits",
    "validation": 100,
    "test": 200,
    "classes": ["9", "7", "5"],
    "per_class": 12,
}
SPECS = SETS | {"low": LOW, "high": HIGH}
CNN = {"arch": "cnn2", "net": {"dropout": 0.1}, "train": {"epochs": 6, "batch": 32, "lr": 0.005}}
BASE = {**CNN, "data": {"set": "low", "size": [8, 8], "colour": "grey"}}
TRANSFERS = {
    "base": BASE,
    "linear": {
        "needs": "base",
        "data": {"set": "high"},
        "head": {"kind": "linear", "folds": 3},
        "train": {"epochs": 0},
    },
    "tuned": {
        "needs": "base",
        "data": {"set": "high"},
        "head": {"kind": "softmax", "stages": 2},
        "train": {"epochs": 2, "batch": 8},
    },
}


def copy_params(folder: Path) -> Path:
    return Path(shutil.copy(ROOT / "params.yaml", folder))
