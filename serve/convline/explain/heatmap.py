"""The picture of a heat map: the image as the network reads it, beside the map drawn over it.

Red is positive, blue is negative, grey is zero. Colour is full from the 99th percentile of absolute
values (Smilkov et al. 2017, arXiv:1706.03825, section 3.1), because a single pixel would otherwise
leave the rest grey. The legend and the scale are below the picture and in the PNG's Description.
"""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from convline.colours import INK, NEGATIVE, POSITIVE, WHITE, rgb

Floats = npt.NDArray[np.floating]
LEGENDS = {
    "saliency": "red: change of the score for each grey level",
    "smoothgrad": "red: change of the score for each grey level, mean under noise",
    "integrated-gradients": "red: raises the score, blue: lowers it",
    "occlusion": "red: the score falls where hidden, blue: it rises",
    "rise": "red: score above the mean where visible, blue: below",
}
SCALE = "full colour from"  # the beginning of the last line of the legend
MIN_SIDE_PX = 224  # the shorter side of the image is enlarged to at least this
GAP_PX, LINE_PX = 8, 14  # between image and map; height of a line of text


def is_heatmap(path: Path) -> bool:
    """Return whether a file is a picture that this module drew."""
    with path.open("rb") as file:
        head = file.read(4096)
    return head.startswith(b"\x89PNG") and f"; {SCALE} ".encode() in head


def reduce_channels(values: Floats, method: str) -> Floats:
    """Return one number per pixel (H, W) of a map (H, W, C) or (H, W).

    The sign of a gradient depends on whether an object is brighter than its ground, so the largest
    magnitude of the channels is taken (Simonyan et al. 2013, arXiv:1312.6034, section 3.1).
    Contributions are summed. RISE's map is a mean of probabilities, so its mean is subtracted.
    """
    if method in ("saliency", "smoothgrad"):
        return np.asarray(np.abs(values).max(axis=2))
    if method == "rise":
        return np.asarray(values - values.mean())
    return values.sum(axis=2) if values.ndim == 3 else values


def full_colour_value(values: Floats) -> float:
    """Return the 99th percentile of |values|; their maximum if that is 0; 1 if all are 0."""
    size = np.abs(values)
    return float(np.percentile(size, 99) or size.max() or 1.0)


def overlay(image: npt.NDArray[np.uint8], values: Floats, scale: float) -> npt.NDArray[np.uint8]:
    """Return RGB (H, W, 3): the grey image under red positive and blue negative values (H, W)."""
    strength = np.clip(np.abs(values) / scale, 0, 1)[..., None]
    grey = image.mean(axis=2, keepdims=True)
    colour = np.where(values[..., None] > 0, rgb(POSITIVE), rgb(NEGATIVE))
    return np.asarray(np.rint(grey * (1 - strength) + colour * strength), np.uint8)


def draw_heatmap(image: npt.NDArray[np.uint8], values: Floats, legend: list[str]) -> bytes:
    """Return the PNG of an image (H, W, C) beside its map (H, W), with legend and scale below."""
    scale = full_colour_value(values)
    lines = [
        line.encode("ascii", "replace").decode() for line in (*legend, f"{SCALE} {scale:.3g} on")
    ]
    coloured = image if image.shape[2] == 3 else np.repeat(image, 3, axis=2)
    zoom = max(1, -(-MIN_SIDE_PX // min(image.shape[:2])))
    pair = np.concatenate([coloured, overlay(image, values, scale)])  # (2 H, W, 3)
    left, right = pair.repeat(zoom, 0).repeat(zoom, 1).reshape(2, zoom * image.shape[0], -1, 3)
    height, width = left.shape[:2]
    size = (2 * width + GAP_PX, height + LINE_PX * len(lines) + GAP_PX)
    picture = Image.new("RGB", size, WHITE)
    picture.paste(Image.fromarray(left), (0, 0))
    picture.paste(Image.fromarray(right), (width + GAP_PX, 0))
    text = ImageDraw.Draw(picture)
    text.multiline_text((2, height + 2), "\n".join(lines), fill=INK, spacing=2)
    metadata, file = PngInfo(), io.BytesIO()
    metadata.add_text("Description", "; ".join(lines))
    picture.save(file, "PNG", pnginfo=metadata)
    return file.getvalue()
