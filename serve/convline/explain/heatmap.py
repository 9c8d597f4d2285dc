"""A map of what an answer rests on as a picture: the image as the network sees it beside the map laid over it.

Red stands for positive values, blue for negative ones; where there is no colour, there is nothing. Colour is full from
the 99th percentile of absolute values on (Smilkov et al. 2017, arXiv:1706.03825, section 3.1), else one pixel would
leave the rest blank; the legend and the scale stand below the picture and in the PNG's Description.
"""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

Floats = npt.NDArray[np.floating]
RED, BLUE = np.array([202.0, 0.0, 32.0]), np.array([5.0, 80.0, 200.0])
LEGENDS = {  # what colours say
    "saliency": "red: how much the score moves with a grey level there",
    "smoothgrad": "red: how much the score moves with a grey level there",
    "integrated-gradients": "red raises the score, blue lowers it, by so much",
    "occlusion": "red: probability lost where it is hidden, blue: won",
    "rise": "red: probability above the mean where it stays, blue: below",
}
SCALE = "full colour from"  # how the last line begins
LEAST_PX, GAP, LINE = (
    224,
    8,
    14,
)  # of the enlarged image's shorter side; between the two; a line of text


def is_picture(path: Path) -> bool:
    """Return whether a file is a picture of this module."""
    with path.open("rb") as file:
        head = file.read(4096)
    return head.startswith(b"\x89PNG") and f"; {SCALE} ".encode() in head


def heat(found: Floats, method: str) -> Floats:
    """Return one number for each pixel (H, W) of a map (H, W, C) or (H, W).

    A gradient has no sign that a pixel could show (bright on dark or dark on bright), so the largest magnitude of the
    channels is taken (Simonyan et al. 2013, arXiv:1312.6034, section 3.1); contributions are summed. RISE's map is a
    mean of probabilities, so what a pixel adds shows in its difference from the mean.
    """
    if method in ("saliency", "smoothgrad"):
        return np.asarray(np.abs(found).max(axis=2))
    return (
        found - found.mean()
        if method == "rise"
        else found.sum(axis=2)
        if found.ndim == 3
        else found
    )


def scale_of(values: Floats) -> float:
    """Return the value from which on colour is full: the 99th percentile, the largest of a sparse map, 1 of none."""
    size = np.abs(values)
    return float(np.percentile(size, 99) or size.max() or 1.0)


def overlay(image: npt.NDArray[np.uint8], values: Floats, scale: float) -> npt.NDArray[np.uint8]:
    """Return rgb (H, W, 3): the image in grey, under red for positive values (H, W) and blue for negative ones."""
    strength = np.clip(np.abs(values) / scale, 0, 1)[..., None]
    grey = image.mean(axis=2, keepdims=True)
    colour = np.where(values[..., None] > 0, RED, BLUE)
    return np.asarray(np.rint(grey * (1 - strength) + colour * strength), np.uint8)


def png(image: npt.NDArray[np.uint8], values: Floats, lines: list[str]) -> bytes:
    """Return the PNG of an image (H, W, C) beside its map (H, W), with the lines and the scale below."""
    scale = scale_of(values)
    lines = [
        line.encode("ascii", "replace").decode() for line in (*lines, f"{SCALE} {scale:.3g} on")
    ]
    seen = image if image.shape[2] == 3 else np.repeat(image, 3, axis=2)
    times = max(1, -(-LEAST_PX // min(image.shape[:2])))
    pair = [
        Image.fromarray(part.repeat(times, 0).repeat(times, 1))
        for part in (seen, overlay(image, values, scale))
    ]
    width, height = pair[0].size
    picture = Image.new("RGB", (2 * width + GAP, height + LINE * len(lines) + GAP), "white")
    for place, part in enumerate(pair):
        picture.paste(part, (place * (width + GAP), 0))
    ImageDraw.Draw(picture).multiline_text(
        (2, height + 2), "\n".join(lines), fill="black", spacing=2
    )
    about, file = PngInfo(), io.BytesIO()
    about.add_text("Description", "; ".join(lines))
    picture.save(file, "PNG", pnginfo=about)
    return file.getvalue()
