"""Raw image files to uint8 arrays: the geometry of training and of serving, written once.

The rule travels in the model's contract. Policies that are not options, and are the same for every model: the EXIF
orientation is applied, alpha is composited over `background` before anything else, 16-bit grey keeps its high byte
(grey = value // 256; of 12 bits, as a TIFF may say it has, value // 16), an animation gives its first frame, and
floating-point, signed and 32-bit pixels are refused because their range is not known.
"""

import io
import math
import os
import stat
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from convline.errors import InputError
from convline.model_file.schema import CROPS

# What Pillow may be asked to decode: raster formats with a decoder inside the Pillow wheel. EPS and WMF are left out:
# they start other programs. Pillow tries them in this order. TGA has no signature, so the bytes of other formats may
# pass for it; PCX alone comes after it, for its two weak bytes are those of a TGA with an identifier of 10 bytes.
FORMATS = {
    "PNG": (".png", ".apng"), "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "GIF": (".gif",), "BMP": (".bmp",),
    "WEBP": (".webp",), "TIFF": (".tif", ".tiff"), "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"), "AVIF": (".avif",), "ICO": (".ico",), "DIB": (".dib",),
    "SGI": (".sgi",), "QOI": (".qoi",), "PSD": (".psd",), "TGA": (".tga",), "PCX": (".pcx",),
}  # fmt: skip
NAMES = list(FORMATS)
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)

# Pillow's own limit: 89 million pixels, a quarter of a GiB as rgb. Above it Pillow only warns, up to twice it; here it
# is an error, because a small file can claim any size (a decompression bomb).
MAX_PIXELS = 1024 * 1024 * 1024 // 4 // 3

ALMOST_ONE_GREY = (
    "almost of one grey though their files' samples differ: pixels of fewer bits than the file says, or a drawing on "
    "transparent ground of its own colour (docs/serving.md)"
)
FLAT, VARIED = (
    16,
    64,
)  # range of grey levels of a picture without contrast; of the samples of one that has some
WHOLE = 2**20  # bytes; a smaller file is read at once, which halves the time of tiny ones

# What Pillow's decoders raise on hostile bytes: they were written for honest files, and promise no one exception.
DECODER_ERRORS = (
    OSError, ValueError, TypeError, SyntaxError, LookupError, ArithmeticError, AttributeError, RuntimeError,
    EOFError, MemoryError, Warning, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip

# Bits of a sample and what one step of it is in 8 bits, of the PNG whose decoded pixels have 8 bits: by Pillow's name.
KEYS = {"L": (8, 1), "L;2": (2, 85), "L;4": (4, 17), "RGB": (8, 1)}
Decoded = TypeVar("Decoded")
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
ORIENTATION = 0x0112  # EXIF tag; from 5 on, width and height change places
RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
FIXED = {"exif": "apply", "sixteen_bit": "high byte", "frames": "first"}


@dataclass(frozen=True)
class ImageRule:
    """How any image becomes uint8 (H, W, C): C is 1 for "grey" (ITU-R 601 luma) and 3 for "rgb".

    ImageRule((28, 28), "grey")                             # the whole image, stretched to 28 x 28
    ImageRule((224, 224), "rgb", "crop", shorter_px=256)    # shorter side to 256, then the centre 224 x 224

    `crop` resamples once, from the exact centre of the image, which may begin between two pixels; `torchvision` scales
    to whole pixels first and then cuts at whole pixels, as torchvision's Resize and CenterCrop do.
    """

    size: tuple[int, int]  # (H, W)
    colour: str  # "grey" | "rgb"
    fit: str = "stretch"  # "stretch" | "crop" | "torchvision"
    shorter_px: int | None = None  # crop and torchvision only
    interpolation: str = "bilinear"
    background: tuple[int, int, int] = (0, 0, 0)
    draft: bool = False  # a JPEG is decoded at 1/2, 1/4 or 1/8, if that still has the pixels that resizing asks for

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("colour", self.colour, ("grey", "rgb")),
            ("fit", self.fit, ("stretch", *CROPS)),
            ("interpolation", self.interpolation, tuple(RESAMPLING)),
        ):
            if value not in choices:
                raise ValueError(
                    f"ImageRule.{name}: expected one of {', '.join(choices)}, got {value!r}"
                )
        if self.fit != "stretch" and (self.shorter_px is None or self.shorter_px < max(self.size)):
            raise ValueError(
                f"ImageRule.shorter_px: expected at least {max(self.size)} to crop, got {self.shorter_px}"
            )
        if self.fit == "stretch" and self.shorter_px is not None:
            raise ValueError(
                f"ImageRule.shorter_px: expected None with fit 'stretch', got {self.shorter_px}"
            )
        if self.fit == "torchvision" and self.draft:
            raise ValueError(
                "ImageRule.draft: expected false with fit 'torchvision', whose pixels it changes, got true"
            )

    @property
    def channels(self) -> int:
        return 1 if self.colour == "grey" else 3

    def to_dict(self) -> dict[str, Any]:
        """Return the `input` object of the model document."""
        crop = {"shorter_px": self.shorter_px} if self.shorter_px is not None else {}
        return {
            "kind": "image", "size": list(self.size), "colour": self.colour, "fit": self.fit, **crop,
            "interpolation": self.interpolation, "background": list(self.background), "draft": self.draft, **FIXED,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> "ImageRule":
        """Return the rule of an `input` object that `convline.model_file.schema` has checked."""
        height, width = document["size"]
        red, green, blue = document["background"]
        return cls(
            size=(height, width), colour=document["colour"], fit=document["fit"],
            shorter_px=document.get("shorter_px"), interpolation=document["interpolation"],
            background=(red, green, blue), draft=document["draft"],
        )  # fmt: skip


def read_image(source: str | Path | bytes | Image.Image, rule: ImageRule) -> npt.NDArray[np.uint8]:
    """Return uint8 (H, W, C) for a path, the bytes of a file, or a Pillow image; InputError says why not."""
    if isinstance(source, Image.Image):
        return _to_array(source, rule, "Pillow image")
    return _decoded(
        source, lambda image, where: _to_array(image, rule, where), rule if rule.draft else None
    )


def read_picture(
    source: str | Path | bytes | Image.Image, background: tuple[int, int, int]
) -> Image.Image:
    """Return the whole picture as `read_image` sees it before it takes the rule's size: L of a grey file, else RGB."""

    def finish(image: Image.Image, where: str) -> Image.Image:
        _scale_colour_key(image)
        image.load()
        grey = image.mode in ("1", "L", "LA", "I") or image.mode.startswith("I;16")
        samples = _samples_of(image, where)
        return _to_colour(_upright(image), "grey" if grey else "rgb", background, samples, where)

    return (
        finish(source, "Pillow image")
        if isinstance(source, Image.Image)
        else _decoded(source, finish)
    )


def lost_contrast(source: str | Path | bytes, decoded: npt.NDArray[np.uint8]) -> bool:
    """Return whether a decoded picture is almost of one grey though the samples of its file are not.

    So are 12 bits in a 16-bit file that does not say so, and black drawings on a transparent ground over black.
    """
    if np.ptp(decoded) > FLAT:
        return False

    def varies(image: Image.Image, where: str) -> bool:
        extrema: Any = image.getextrema()
        return any(
            high - low > VARIED
            for low, high in (extrema if isinstance(extrema[0], tuple) else [extrema])
        )

    try:
        return _decoded(source, varies)
    except InputError:
        return False


def _decoded(
    source: str | Path | bytes,
    finish: Callable[[Image.Image, str], Decoded],
    draft: ImageRule | None = None,
) -> Decoded:
    """Return what `finish` makes of the opened image and its name; InputError says why it cannot be read.

    draft: the rule that says how many pixels of a JPEG are needed, where fewer than all are decoded.
    """
    where = "image bytes" if isinstance(source, bytes) else str(source)
    try:
        with _open(source, where) as file, Image.open(file, formats=NAMES) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(
                    where,
                    f"expected at most {MAX_PIXELS} pixels, got {image.width} x {image.height}",
                )
            if draft:
                _draft(image, draft)
            return finish(image, where)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(
            where, f"expected at most {MAX_PIXELS} pixels, got a decompression bomb"
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(where, "expected an image, got bytes of no known image format") from error
    except DECODER_ERRORS as error:
        reason = " ".join(str(error).split()) or repr(error)
        raise InputError(where, f"the image cannot be decoded: {reason}") from error


def read_file(path: str) -> bytes:
    """Return the bytes of an image file; InputError says why not, as `read_image` does."""
    with _open(path, path) as file:
        try:
            return file.read()
        except OSError as error:
            raise InputError(path, f"the file cannot be read: {error.strerror}") from error


def _open(source: str | Path | bytes, where: str) -> IO[bytes]:
    """Return an open file with at least one byte; pipes and devices are refused because reading them may hang."""
    if isinstance(source, bytes):
        if not source:
            raise InputError(where, "expected an image, got zero bytes")
        return io.BytesIO(source)
    try:
        status = os.stat(source)
        if stat.S_ISDIR(status.st_mode):
            raise InputError(where, "expected an image file, got a folder")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(where, "expected an image file, got a pipe, socket or device")
        if status.st_size == 0:
            raise InputError(where, "expected an image, got zero bytes")
        if status.st_size > WHOLE:
            return open(source, "rb")
        with open(source, "rb", buffering=0) as file:
            return io.BytesIO(file.read(status.st_size))
    except FileNotFoundError as error:
        raise InputError(where, "no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(
            where, f"the file cannot be opened: {getattr(error, 'strerror', None) or error}"
        ) from error


def _draft(image: Image.Image, rule: ImageRule) -> None:
    """Tell a JPEG's decoder to leave out pixels that the resize would only average; other formats have no such way."""
    if image.format != "JPEG":
        return
    height, width = rule.size
    if image.getexif().get(ORIENTATION, 1) > 4:
        height, width = width, height
    if rule.shorter_px is not None:  # both sides of the scaled image, before the crop
        scale = rule.shorter_px / min(image.size)
        width, height = (math.ceil(side * scale) for side in image.size)
    image.draft(None, (width, height))


def _to_array(image: Image.Image, rule: ImageRule, where: str) -> npt.NDArray[np.uint8]:
    _scale_colour_key(image)
    image.load()
    samples = _samples_of(image, where)
    image = _to_colour(_upright(image), rule.colour, rule.background, samples, where)
    # Twice as fast as np.asarray(image) where images are small, as they are by the million.
    return np.frombuffer(_to_size(image, rule, where).tobytes(), np.uint8).reshape(
        *rule.size, rule.channels
    )


def _scale_colour_key(image: Image.Image) -> None:
    """Give the transparent grey or colour of a PNG that is not decoded yet (tRNS) in the 8 bits of its pixels.

    Pillow leaves it in the bits of the file. Of 16-bit colours Pillow keeps the high bytes, so those are compared.
    """
    key = image.info.get("transparency")
    raw = (
        image.tile[0].args
        if image.format == "PNG" and isinstance(image, ImageFile) and image.tile
        else None
    )
    if raw in KEYS and isinstance(key, int | tuple):
        bits, step = KEYS[raw]
        scaled = [
            (sample & ((1 << bits) - 1)) * step
            for sample in (key if isinstance(key, tuple) else (key,))
        ]
        image.info["transparency"] = tuple(scaled) if isinstance(key, tuple) else scaled[0]
    elif raw == "RGB;16B" and isinstance(key, tuple):
        image.info["transparency"] = tuple(sample >> 8 for sample in key)


def _upright(image: Image.Image) -> Image.Image:
    """Return the image as its EXIF orientation says that it is seen."""
    # Without any metadata there is none; exif_transpose would copy all pixels of an upright image for nothing.
    if not image.info or image.getexif().get(ORIENTATION, 1) == 1:
        return image
    return ImageOps.exif_transpose(image)


class _Samples(NamedTuple):
    """What a file says of its grey samples of more than 8 bits."""

    bits: int = 16
    white_is_zero: bool = False


def _samples_of(image: Image.Image, where: str) -> _Samples:
    """Return the bits of the samples and their sense, which Pillow leaves out of the pixels of a TIFF file.

    InputError where their range is not known: Pillow would take the lowest 8 or 16 bits of any of them.
    """
    tags: Any = getattr(image, "tag_v2", {})
    bits, form = (
        _first(tags.get(tag, default))
        for tag, default in ((BITS_PER_SAMPLE, 16), (SAMPLE_FORMAT, 1))
    )
    kind = (
        "floating-point"
        if image.mode == "F"
        else "signed"
        if form == 2
        else f"{bits}-bit"
        if bits > 16
        else ""
    )
    if (
        not kind and image.mode == "I" and not tags
    ):  # of a PGM, or made by hand: 16 bits, or nobody knows how many
        low, high = image.getextrema()
        kind = "" if low >= 0 and high <= 65535 else "32-bit"  # type: ignore[operator]  # one band: two numbers
    if kind:
        expected = "expected unsigned pixels of up to 16 bits"
        raise InputError(
            where, f"{expected}, got {kind} pixels whose range is not known; save it as 8-bit"
        )
    return _Samples(bits, tags.get(PHOTOMETRIC) == 0)


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)


def _to_colour(
    image: Image.Image, colour: str, background: tuple[int, int, int], samples: _Samples, where: str
) -> Image.Image:
    """Return the image in mode L or RGB, alpha composited over the background."""
    target = "L" if colour == "grey" else "RGB"
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255. Mode "I" is 16 bits as well: Pillow reads PGM files so.
        values = np.asarray(image)
        high = (values.astype(np.int64) >> (samples.bits - 8)).clip(0, 255).astype(np.uint8)
        key = image.info.get("transparency")  # of a PNG, in 16 bits
        image = Image.fromarray(~high if samples.white_is_zero else high)
        if isinstance(key, int):
            image.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    if image.has_transparency_data:
        backdrop = Image.new("RGBA", image.size, (*background, 255))
        image = Image.alpha_composite(backdrop, image.convert("RGBA")).convert("RGB")
    return image if image.mode == target else image.convert(target)


def _to_size(image: Image.Image, rule: ImageRule, where: str) -> Image.Image:
    """Return the image at the rule's size by at most one resampling; none where it has that size already."""
    height, width = rule.size
    resample = RESAMPLING[rule.interpolation]
    if rule.shorter_px is None:  # stretch
        return image if image.size == (width, height) else image.resize((width, height), resample)
    if rule.fit == "torchvision":
        return _cut(_to_shorter(image, rule.shorter_px, resample, where), width, height)
    # The centre crop in source pixels: what remains of it after scaling the shorter side to shorter_px.
    scale = rule.shorter_px / min(image.size)
    box_width, box_height = min(width / scale, image.width), min(height / scale, image.height)
    left, top = (image.width - box_width) / 2, (image.height - box_height) / 2
    box = (left, top, min(left + box_width, image.width), min(top + box_height, image.height))
    return image.resize((width, height), resample, box=box)


def _to_shorter(
    image: Image.Image, shorter_px: int, resample: Image.Resampling, where: str
) -> Image.Image:
    """Return the image with its shorter side scaled to `shorter_px`; the other side is cut to whole pixels."""
    width, height = (shorter_px * side // min(image.size) for side in image.size)
    if width * height > MAX_PIXELS:  # of an image of few pixels that is very long
        size = f"{width} x {height} from {image.width} x {image.height}"
        raise InputError(where, f"expected at most {MAX_PIXELS} pixels after scaling, got {size}")
    return image if image.size == (width, height) else image.resize((width, height), resample)


def _cut(image: Image.Image, width: int, height: int) -> Image.Image:
    """Return the centre; half a pixel goes to the even side, as Python and torchvision round."""
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))
