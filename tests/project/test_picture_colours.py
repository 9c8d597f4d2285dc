"""One palette: every colour of a picture is from convline/colours.py, or from style.css."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import matplotlib
import pytest
from convline import colours
from matplotlib.colors import to_hex

from pipeline.plots import style

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "pipeline" / "report" / "templates"
DRAWING = (
    "serve/convline",
    "pipeline/plots",
    "pipeline/explain",
    "pipeline/report",
    "pipeline/study",
)
OWN = {
    "serve/convline/colours.py",
    "pipeline/plots/style.py",
    "pipeline/report/templates/style.css",
}
HEX = re.compile(r"#(?:[0-9a-fA-F]{3}){1,2}\b")
LOOKS = {"color", "colors", "c", "ec", "fc", "edgecolor", "edgecolors", "facecolor", "fill",
         "facecolors", "mec", "mfc", "markeredgecolor", "markerfacecolor", "cmap"}  # fmt: skip


def colours_of(source: str) -> list[str]:
    """Return the colours that a Python file names: #rrggbb, a literal of a colour's argument, or
    the name of a colour map.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += HEX.findall(node.value)
        values: list[ast.expr | None] = []
        if isinstance(node, ast.keyword) and node.arg in {*LOOKS, "colour"}:
            values = [node.value]
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            values = [v for k, v in pairs if isinstance(k, ast.Constant) and k.value in LOOKS]
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("colormaps"):
            values = [node.slice]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.new":
            values = node.args[2:]
        for value in values:
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found += [value.value] * (value.value != "none")
    return found


def test_pictures_name_no_colour_of_their_own() -> None:
    for folder in DRAWING:
        for path in (ROOT / folder).rglob("*.py"):
            if str(path.relative_to(ROOT)) not in OWN:
                assert not colours_of(path.read_text(encoding="utf-8")), path


def test_templates_name_no_colour_of_their_own() -> None:
    for path in TEMPLATES.rglob("*"):
        if path.is_file() and str(path.relative_to(ROOT)) not in OWN:
            text = re.sub(r'(?:href|url)[=(]"?#[\w-]+|&#\w+;', "", path.read_text(encoding="utf-8"))
            assert not HEX.findall(text), path


@pytest.mark.parametrize(
    "line",
    ['x = "#0072B2"', 'axis.plot(x, color="red")', 'look = {"cmap": "Greys"}',
     'matplotlib.colormaps["viridis"](x)', 'Image.new("RGB", (1, 1), "white")'],
)  # fmt: skip
def test_each_way_to_name_a_colour_is_seen(line: str) -> None:
    assert colours_of(line)
    assert not colours_of('axis.plot(x, mfc="none", color=BLUE, ls="--", label="red wine")')


def turned_light(colour: str) -> str:
    """Return a colour after CSS's invert(1) hue-rotate(180deg), the report's filter of charts.

    The matrix is that of the W3C's Filter Effects, section 11.5, for cos = -1 and sin = 0.
    """
    red, green, blue = (255 - value for value in colours.rgb(colour))
    luminance = 0.213 * red + 0.715 * green + 0.072 * blue
    turned = [2 * luminance - value for value in (red, green, blue)]
    return "#" + bytes(round(min(max(value, 0), 255)) for value in turned).hex()


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("right", colours.BLUE),
        ("wrong", colours.ORANGE),
        ("positive", colours.POSITIVE),
        ("negative", colours.NEGATIVE),
    ],
)
def test_the_pages_colours_are_those_of_the_charts(name: str, colour: str) -> None:
    """On a light page the palette's own; on a dark page what the filter makes of it."""
    css = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    light, dark = re.findall(rf"--{name}: (#\w+)", css)
    assert light.lower() == colour.lower()
    channels = zip(colours.rgb(dark), colours.rgb(turned_light(colour)), strict=True)
    assert all(abs(a - b) <= 2 for a, b in channels), turned_light(colour)


def test_maps_with_a_sign_have_one_pair_of_colours() -> None:
    """`infer explain` draws without matplotlib: its red and blue are those of the map."""
    signed = matplotlib.colormaps[style.SIGNED]
    ends = [to_hex(signed(share)).upper() for share in (0.9, 0.1)]
    for end, colour in zip(ends, (colours.POSITIVE, colours.NEGATIVE), strict=True):
        pairs = zip(colours.rgb(end), colours.rgb(colour), strict=True)
        assert all(abs(a - b) <= 3 for a, b in pairs), end


def test_interval_tints_are_lighter_where_wider() -> None:
    """The widest interval is the first and lightest; one interval has one tint."""
    assert colours.interval_tints(0) == [] and len(colours.interval_tints(1)) == 1
    greens = [colours.rgb(tint)[1] for tint in colours.interval_tints(3)]
    assert greens == sorted(greens, reverse=True) and len({*greens}) == 3
