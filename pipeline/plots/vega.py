"""Charts whose points can be looked up: Vega-Lite specifications, compiled and drawn as PNG.

The page shows the PNG until its copy of the library, which is taken from vl-convert, has drawn the
same specification.
"""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import vl_convert
from convline.colours import BLUE, GREY, GRID, INK, ORANGE, PALETTE, WHITE
from PIL import Image

from pipeline.plots.style import PIXEL_RATIO, Picture

TEMPLATES = Path(__file__).parents[1] / "report" / "templates"
LIBRARY = "vega.js"
SPECIFICATIONS = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
SPECIFICATIONS.globals |= {
    "palette": PALETTE,
    "colours": {"ink": INK, "grey": GREY, "grid": GRID, "training": BLUE, "validation": ORANGE},
}
CONFIG = json.loads(SPECIFICATIONS.get_template("charts/config.json.j2").render())
ANCHORS = "right left top bottom top-right top-left bottom-right bottom-left"
LABEL = {  # Vega's transform that places each name where it overlaps nothing
    "type": "label",
    "size": {"signal": "[width, height]"},
    "offset": [2, 2, 2, 2, 8, 8, 8, 8],
    "anchor": ANCHORS.split(),
}


def draw_chart(kind: str, path: Path, alt: str, **facts: Any) -> Picture:
    """Write the PNG of templates/charts/<kind>.json.j2, filled with `facts`.

    The picture that is returned has the specification, too.
    """
    filled = SPECIFICATIONS.get_template(f"charts/{kind}.json.j2").render(description=alt, **facts)
    spec = vl_convert.vegalite_to_vega(json.loads(filled) | {"config": CONFIG})
    del spec["$schema"]  # the report contains no address
    on_white = spec | {"background": WHITE}
    png = vl_convert.vega_to_png(on_white, scale=PIXEL_RATIO, allowed_base_urls=[])
    image = remove_white(png)
    path.unlink(missing_ok=True)
    image.save(path)
    for mark in spec["marks"]:
        # Vega-Lite has no label transform, and vl-convert no canvas to measure texts on
        if mark.get("name") == "names_marks":
            look = {key: mark["encode"]["update"][key] for key in ("fill", "fontSize")}
            texts = {"update": {"text": {"field": "datum.name"}, **look}}
            mark |= {"from": {"data": "points_marks"}, "encode": texts, "transform": [LABEL]}
    width, height = (side // PIXEL_RATIO for side in image.size)
    return Picture(path.name, width, height, alt, spec)


def remove_white(png: bytes) -> Image.Image:
    """Return a picture on white as one with no ground that looks the same on white.

    vl-convert darkens translucent colours on no ground: no channel is above alpha.
    """
    with Image.open(io.BytesIO(png)) as image:
        rgb = np.asarray(image.convert("RGB"), np.float64) / 255
    alpha = 1 - rgb.min(2, keepdims=True)
    colour = (rgb - (1 - alpha)) / np.maximum(alpha, 1e-9)
    rgba = np.concatenate([colour, alpha], 2)
    return Image.fromarray(np.rint(255 * rgba).astype(np.uint8), "RGBA")


def label_sparsely(points: list[dict[str, Any]], x: str, y: str) -> list[dict[str, Any]]:
    """Return the points with a `label` for the PNG: the name, or "" close to a labelled point."""
    places = np.array([(np.log(point[x]), point[y]) for point in points])
    places /= np.ptp(places, axis=0) + 1e-9
    labelled: list[int] = []
    for k, place in enumerate(places):
        distances = np.abs(places[labelled] - place)
        if points[k]["name"] and not (distances < (0.26, 0.06)).all(1).any():
            labelled.append(k)
    labels = [point["name"] if k in labelled else "" for k, point in enumerate(points)]
    return [point | {"label": label} for point, label in zip(points, labels, strict=True)]


@functools.cache
def javascript_library() -> str:
    """Return the script that draws specifications; it needs no network.

    It defines `vegaEmbed`.
    """
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return f"(() => {{\n{bundle}\n}})();\n"
