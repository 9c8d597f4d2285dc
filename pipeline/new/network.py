"""A new architecture: a file in models/ that trains as it is, and an entry on digits."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from pipeline.core.errors import StageError
from pipeline.new.params_file import Entry
from pipeline.params.network_options import MODELS

# A network of our own, which the linter and the type checker read; its name is replaced.
STARTER = Path(__file__).with_name("starter.py")


def propose(name: str) -> tuple[Path, str, Entry]:
    """Return the file of a new architecture, its text, and an entry that trains it on digits.

    Raises StageError where the name cannot be one of a module of models/.
    """
    require_module_name(name)
    title = "".join(part.capitalize() for part in name.split("_"))
    file, entry = MODELS / f"{name}.py", f"{name.replace('_', '-')}-digits"
    text = STARTER.read_text(encoding="utf-8").replace("Starter", title).replace("starter", name)
    recipe = {
        "arch": name,
        "data": {"set": "digits", "size": [8, 8], "colour": "grey"},
        "train": {"epochs": 20, "batch": 32, "lr": 0.002, "schedule": "onecycle"},
    }
    return (
        file,
        text,
        Entry(
            name=entry,
            recipe=recipe,
            data_set=None,
            seen=[f"network   {file}: three convolutions with batch normalisation"],
            why=f"models/{name}.py on the digits that come with scikit-learn",
            predict=f"infer images {entry} out/{entry}/data/raw/000",
        ),
    )


def require_module_name(name: str) -> None:
    """Raise StageError where models/<name>.py cannot be a new module."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        better = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_0123456789")
        better = f"{better or 'my'}_net" if keyword.iskeyword(better) or not better else better
        what = "expected a Python name in lower case, as the network becomes models/<name>.py"
        raise StageError(f"new net: {what}, got {name!r}; use {better!r}")
    if (MODELS / f"{name}.py").exists():
        cure = f"choose another name, such as 'my_{name}'"
        raise StageError(f"new net: models/{name}.py is there already; {cure}")
