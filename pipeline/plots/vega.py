"""Charts that can be read off: a Vega-Lite specification (templates/charts/) filled, compiled, and drawn once as PNG.

The page shows the PNG until its own copy of the library, taken out of vl-convert, has drawn the same specification.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import vl_convert
from PIL import Image

from pipeline.plots.style import BLUE, GREEN, INK, ORANGE, PIXEL_RATIO, PURPLE, Picture

TEMPLATES = Path(__file__).parents[1] / "report" / "templates"
LIBRARY = "vega.js"
SPECIFICATIONS = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
PALETTE = [BLUE, ORANGE, GREEN, PURPLE, "#E69F00", "#56B4E9"]
SPECIFICATIONS.globals |= {"palette": PALETTE, "ink": INK}
CONFIG = json.loads((TEMPLATES / "charts" / "config.json").read_text(encoding="utf-8"))
LABEL = {  # each name where it touches nothing
    "type": "label",
    "size": {"signal": "[width, height]"},
    "offset": [2, 2, 2, 2, 8, 8, 8, 8],
    "anchor": [
        "right",
        "left",
        "top",
        "bottom",
        "top-right",
        "top-left",
        "bottom-right",
        "bottom-left",
    ],
}


def chart(kind: str, path: Path, alt: str, **facts: Any) -> Picture:
    """Write the PNG of templates/charts/<kind>.json.j2, filled with `facts`; return it with its specification."""
    filled = SPECIFICATIONS.get_template(f"charts/{kind}.json.j2").render(description=alt, **facts)
    spec = vl_convert.vegalite_to_vega(json.loads(filled) | {"config": CONFIG})
    del spec["$schema"]  # an address
    path.write_bytes(vl_convert.vega_to_png(spec, scale=PIXEL_RATIO, allowed_base_urls=[]))
    for mark in spec["marks"]:
        if (
            mark.get("name") == "names_marks"
        ):  # Vega-Lite has no way to say it, and vl-convert no canvas to measure on
            look = {key: mark["encode"]["update"][key] for key in ("fill", "fontSize")}
            words = {"update": {"text": {"field": "datum.name"}, **look}}
            mark |= {"from": {"data": "points_marks"}, "encode": words, "transform": [LABEL]}
    with Image.open(path) as image:
        width, height = (side // PIXEL_RATIO for side in image.size)
    return Picture(path.name, width, height, alt, spec)


def sparse(points: list[dict[str, Any]], x: str, y: str) -> list[dict[str, Any]]:
    """Return the points with a `label`: the name of each that no labelled one before it is near to; for the PNG."""
    place = np.array([(np.log(point[x]), point[y]) for point in points])
    place /= np.ptp(place, axis=0) + 1e-9
    labelled: list[int] = []
    for k, here in enumerate(place):
        if points[k]["name"] and not any(
            (abs(here - place[other]) < (0.26, 0.06)).all() for other in labelled
        ):
            labelled.append(k)
    return [
        point | {"label": point["name"] if k in labelled else ""} for k, point in enumerate(points)
    ]


@functools.cache
def library() -> str:
    """Return the script that draws specifications: it defines vegaEmbed and asks nothing of the network."""
    return f"(() => {{\n{vl_convert.javascript_bundle('window.vegaEmbed = vegaEmbed;')}\n}})();\n"
