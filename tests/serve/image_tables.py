"""Images in a Parquet file, good ones and bad ones."""

import io
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from PIL import Image


def png(grey: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (9, 9), grey).save(stream, "PNG")
    return stream.getvalue()


IMAGES = [png(0), png(255), b"no image", None, png(120), b""]


def write_table(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
    return path
