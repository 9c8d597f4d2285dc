"""`dvc`, which reads and writes dvc.lock with the compiled parser of ruamel.yaml.

DVC rewrites the whole file after each stage with a parser in Python that keeps comments, and a lock
file has none: 1.1 s for the 7,000 lines of the line, against .2 s, at each stage. The content is
equal, and so are the bytes, but for text of several lines, and for None, which is written as null.

    python -m pipeline.line.dvc repro ...
"""

from __future__ import annotations

import io
import os
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dvc import dvcfile
from dvc.cli import main
from dvc.utils.serialize import _common, modify_yaml, parse_yaml
from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter


class Representer(SafeRepresenter):
    """Writes DVC's ordered mappings as plain ones."""


Representer.add_representer(OrderedDict, SafeRepresenter.represent_dict)


def lock_text(data: Any) -> str:
    """Return the text of a lock file, its keys in order."""
    yaml = YAML(typ="safe")
    yaml.Representer = Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # it is declared None
    stream = io.StringIO()
    yaml.dump(data, stream)
    return stream.getvalue()


@contextmanager
def modify(path: str, fs: Any = None) -> Iterator[Any]:
    """Yield the content of a YAML file, and write what has become of it, as DVC's own function."""
    if os.path.basename(path) != dvcfile.LOCK_FILE:
        with modify_yaml(path, fs=fs) as data:
            yield data
        return
    text = ""
    with _common._modify_data(path, parse_yaml, lambda _, file: file.write(text), fs=fs) as data:
        yield data
        text = lock_text(data)  # before DVC opens the file, which empties it


if __name__ == "__main__":
    dvcfile.modify_yaml = modify
    sys.exit(main(sys.argv[1:]))
