"""Decode image files to uint8 arrays. Training and serving both call this module.

Each model file stores its `ImageRule`. The following policies are the same for every model:

- The EXIF orientation is applied.
- Alpha is composited over `background` before anything else.
- 16-bit grey keeps its high byte: value // 256, or value // 16 where a TIFF declares 12 bits.
- An animation gives its first frame.
- Floating-point, signed and 32-bit pixels are refused, because their range is unknown.
"""

import io
import math
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from convline.errors import InputError
from convline.model_file.document import ImageRule
from convline.model_file.schema import INTERPOLATIONS

# The raster formats whose decoders are inside the Pillow wheel. EPS and WMF are left out, because
# they start other programs. Pillow tries the formats in this order. TGA has no signature, so it may
# accept the bytes of other formats; only PCX comes after it, because its two-byte signature also
# begins a TGA with an identifier of 10 bytes.
FORMATS = {
    "PNG": (".png", ".apng"), "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "GIF": (".gif",),
    "BMP": (".bmp",), "WEBP": (".webp",), "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"), "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "AVIF": (".avif",), "ICO": (".ico",), "DIB": (".dib",),
    "SGI": (".sgi",), "QOI": (".qoi",), "PSD": (".psd",), "TGA": (".tga",), "PCX": (".pcx",),
}  # fmt: skip
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)

# Pillow's own limit: 89 million pixels, a quarter of a GiB as RGB. Pillow only warns between one
# and two times the limit. Here it is an error, because a small file can claim any size (a
# decompression bomb).
MAX_PIXELS = 1024 * 1024 * 1024 // 4 // 3
# Bytes; a file up to this size is read in one call, which halves the time of tiny files.
SMALL_FILE = 2**20

LOW_CONTRAST = (
    "almost of one grey though their files' samples differ: pixels of fewer bits than the file "
    "says, or a drawing on transparent ground of its own colour (docs/serving.md)"
)
FLAT_RANGE = 16  # a decoded image whose grey levels span at most this has no contrast
VARIED_RANGE = 64  # a file whose samples span more than this has some

# Everything that Pillow's decoders raise on damaged bytes: they promise no common exception.
DECODER_ERRORS = (
    OSError, ValueError, TypeError, SyntaxError, LookupError, ArithmeticError, AttributeError,
    RuntimeError, EOFError, MemoryError, Warning, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip

# PNG raw modes that Pillow decodes to 8 bits: (bits per sample in the file, 8-bit value of a step)
PNG_DEPTHS = {"L": (8, 1), "L;2": (2, 85), "L;4": (4, 17), "RGB": (8, 1)}
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # EXIF tag; its values that exchange width and height
RESAMPLING = {name: Image.Resampling[name.upper()] for name in INTERPOLATIONS}


Box = tuple[float, float, float, float]  # left, top, right, bottom of a part, in pixels


class SizedImage(NamedTuple):
    """An image as a network reads it, and the size of the upright image that it was made of."""

    pixels: npt.NDArray[np.uint8]  # (H, W, C)
    size: tuple[int, int]  # (width, height), px, after the EXIF orientation


def read_image(source: str | Path | bytes | Image.Image, rule: ImageRule) -> npt.NDArray[np.uint8]:
    """Return uint8 (H, W, C) of a path, the bytes of a file, or a Pillow image.

    Raises InputError, whose reason is one sentence, if the image cannot be read.
    """
    return read_sized(source, rule).pixels


def read_sized(source: str | Path | bytes | Image.Image, rule: ImageRule) -> SizedImage:
    """Return what `read_image` returns, and the original's size."""
    with _open_image(source) as (image, where):
        declared = image.size
        if rule.draft and not isinstance(source, Image.Image):
            _request_draft(image, rule)
        is_draft = image.size != declared
        upright = _to_colour(image, rule.colour, rule.background, where)
        size = upright.size
        if is_draft:
            is_turned = image.getexif().get(ORIENTATION) in TURNED
            size = declared[::-1] if is_turned else declared
        # Twice as fast as np.asarray(image) for small images.
        resized = np.frombuffer(_resize(upright, rule, where).tobytes(), np.uint8)
        return SizedImage(resized.reshape(*rule.size, rule.channels), size)


def open_part(
    source: str | Path | bytes, rule: ImageRule, choose: Callable[[int, int], Box]
) -> tuple[Image.Image, Box]:
    """Return a decoded upright image in the rule's colour, and a part of it in its pixels.

    choose: returns the part of an upright image of a width and a height; a draft has fewer pixels.
    Raises InputError.
    """
    with _open_image(source) as (image, where):
        if image.format == "PNG":  # getexif would decode it without its transparent value scaled
            _load(image)
        # Of a TIFF, Pillow has exchanged width and height already.
        turned = image.format != "TIFF" and image.getexif().get(ORIENTATION) in TURNED
        width, height = image.size[::-1] if turned else image.size
        box = choose(width, height)
        if rule.draft and image.format == "JPEG":
            needed = (
                math.ceil(width * rule.size[1] / (box[2] - box[0])),
                math.ceil(height * rule.size[0] / (box[3] - box[1])),
            )
            image.draft(None, needed[::-1] if turned else needed)
        upright = _to_colour(image, rule.colour, rule.background, where)
        x, y = upright.width / width, upright.height / height
        # Rounding may pass the edges.
        left, top = max(box[0] * x, 0), max(box[1] * y, 0)
        right, bottom = min(box[2] * x, upright.width), min(box[3] * y, upright.height)
        return upright, (left, top, right, bottom)


def resize_part(image: Image.Image, part: Box, rule: ImageRule) -> npt.NDArray[np.uint8]:
    """Return a part of an image, resampled once to the rule's size: uint8 (H, W, C).

    The outermost pixels take in pixels beside the part, where there are any.
    """
    resized = image.resize(rule.size[::-1], RESAMPLING[rule.interpolation], box=part)
    return np.frombuffer(resized.tobytes(), np.uint8).reshape(*rule.size, rule.channels)


def read_full_size(
    source: str | Path | bytes | Image.Image, background: tuple[int, int, int]
) -> Image.Image:
    """Return the image that `read_image` resizes, in mode L for a grey file, else RGB."""
    with _open_image(source) as (image, where):
        grey = image.mode in ("1", "L", "LA", "I") or image.mode.startswith("I;16")
        return _to_colour(image, "grey" if grey else "rgb", background, where)


def read_size(source: str | Path | bytes) -> tuple[int, int]:
    """Return width and height in pixels of the upright image, from its header and EXIF data."""
    with _open_image(source) as (image, _):
        try:
            # Of a TIFF, Pillow has exchanged them already.
            turned = image.format != "TIFF" and image.getexif().get(ORIENTATION) in TURNED
        except DECODER_ERRORS:  # a PNG is decoded for it; `read_image` says what is wrong with it
            turned = False
        return image.size[::-1] if turned else image.size


def read_format(source: str | Path | bytes) -> str:
    """Return the format of an image, a key of FORMATS."""
    with _open_image(source) as (image, _):
        return "JPEG" if image.format == "MPO" else str(image.format)  # several JPEGs in a file


def read_indices(path: str | Path) -> npt.NDArray[np.uint8]:
    """Return the class indices uint8 (H, W) of a mask: the samples of a palette or grey PNG.

    Raises InputError, whose reason is one sentence, if it is no such file.
    """
    with _open_image(path) as (image, where):
        # Pillow scales grey of 2 and 4 bits to 8, which would change the indices.
        raw_mode = image.tile[0].args if isinstance(image, ImageFile) and image.tile else None
        if image.format != "PNG" or image.mode not in "1LP" or raw_mode in ("L;2", "L;4"):
            got = f"{image.format} of mode {raw_mode if isinstance(raw_mode, str) else image.mode}"
            expected = "expected class indices in a PNG with a palette or 8-bit grey"
            raise InputError(where, f"{expected}, got {got}; convert its colours to indices")
        return np.asarray(image).astype(np.uint8)


def lost_contrast(source: str | Path | bytes, decoded: npt.NDArray[np.uint8]) -> bool:
    """Return whether a decoded image is almost of one grey but the samples of its file are not.

    Two causes: 12 bits in a file that declares 16, and black drawings on a transparent ground over
    black.
    """
    if np.ptp(decoded) > FLAT_RANGE:
        return False
    try:
        with _open_image(source) as (image, _):
            extrema: Any = image.getextrema()
    except InputError:
        return False
    bands = extrema if isinstance(extrema[0], tuple) else [extrema]
    return any(high - low > VARIED_RANGE for low, high in bands)


def read_bytes(path: str) -> bytes:
    """Return the bytes of an image file. Raises InputError where `read_image` does."""
    with _open_file(path, path) as file:
        try:
            return file.read()
        except OSError as error:
            raise InputError(path, f"the file cannot be read: {error.strerror}") from error


@contextmanager
def _open_image(source: str | Path | bytes | Image.Image) -> Iterator[tuple[Image.Image, str]]:
    """Yield the opened image and its name; translate what a decoder raises to InputError."""
    if isinstance(source, Image.Image):
        yield source, "Pillow image"
        return
    where = "image bytes" if isinstance(source, bytes) else str(source)
    limit = f"expected at most {MAX_PIXELS} pixels"
    try:
        with _open_file(source, where) as file, Image.open(file, formats=list(FORMATS)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(where, f"{limit}, got {image.width} x {image.height}")
            yield image, where
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(where, f"{limit}, got a decompression bomb") from error
    except UnidentifiedImageError as error:
        raise InputError(where, "expected an image, got bytes of no known image format") from error
    except DECODER_ERRORS as error:
        reason = " ".join(str(error).split()) or repr(error)
        raise InputError(where, f"the image cannot be decoded: {reason}") from error


def _open_file(source: str | Path | bytes, where: str) -> IO[bytes]:
    """Return an open file of at least one byte. Pipes and devices, which may hang, are refused."""
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
        if status.st_size > SMALL_FILE:
            return open(source, "rb")
        with open(source, "rb", buffering=0) as file:
            return io.BytesIO(file.read(status.st_size))
    except FileNotFoundError as error:
        raise InputError(where, "no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(where, f"the file cannot be opened: {reason}") from error


def _request_draft(image: Image.Image, rule: ImageRule) -> None:
    """Let the JPEG decoder leave out pixels that the resize would only average."""
    if image.format != "JPEG":
        return
    height, width = rule.size
    if image.getexif().get(ORIENTATION) in TURNED:
        height, width = width, height
    if rule.shorter_px is not None:  # both sides of the scaled image, before the crop
        scale = rule.shorter_px / min(image.size)
        width, height = (math.ceil(side * scale) for side in image.size)
    image.draft(None, (width, height))


def _to_colour(
    image: Image.Image, colour: str, background: tuple[int, int, int], where: str
) -> Image.Image:
    """Return the upright image in mode L ("grey") or RGB, alpha composited over the background."""
    _load(image)
    samples = _grey_samples(image, where)
    # exif_transpose would copy all pixels of an upright image.
    if image.info and image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255. Mode "I" is also 16 bits: Pillow reads PGM files so.
        values = np.asarray(image)
        high = (values.astype(np.int64) >> (samples.bits - 8)).clip(0, 255).astype(np.uint8)
        transparent = image.info.get("transparency")  # of a PNG, in 16 bits
        image = Image.fromarray(~high if samples.white_is_zero else high)
        if isinstance(transparent, int):
            alpha = np.where(values == transparent, 0, 255)
            image.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    if image.has_transparency_data:
        backdrop = Image.new("RGBA", image.size, (*background, 255))
        image = Image.alpha_composite(backdrop, image.convert("RGBA")).convert("RGB")
    mode = "L" if colour == "grey" else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _load(image: Image.Image) -> None:
    """Decode an image that is not decoded yet, with its transparent value in decoded bits."""
    _scale_transparent_value(image)
    image.load()


def _scale_transparent_value(image: Image.Image) -> None:
    """Convert a PNG's transparent grey or colour (tRNS chunk) to the 8 bits of decoded pixels.

    Pillow leaves it in the bits of the file. It works on an image that is not decoded yet, which
    still has its raw mode. Of 16-bit colours Pillow keeps the high bytes, so those are compared.
    """
    value = image.info.get("transparency")
    tiles = image.tile if image.format == "PNG" and isinstance(image, ImageFile) else []
    raw_mode = tiles[0].args if tiles else None
    samples = value if isinstance(value, tuple) else (value,)
    if raw_mode in PNG_DEPTHS and isinstance(value, int | tuple):
        bits, step = PNG_DEPTHS[raw_mode]
        scaled = tuple((sample & ((1 << bits) - 1)) * step for sample in samples)
        image.info["transparency"] = scaled if isinstance(value, tuple) else scaled[0]
    elif raw_mode == "RGB;16B" and isinstance(value, tuple):
        image.info["transparency"] = tuple(sample >> 8 for sample in value)


class _GreySamples(NamedTuple):
    """What a file declares about grey samples of more than 8 bits."""

    bits: int = 16
    white_is_zero: bool = False


def _grey_samples(image: Image.Image, where: str) -> _GreySamples:
    """Return the declared bits and sense of the samples, which Pillow ignores when it reads a TIFF.

    Raises InputError where the range of the samples is unknown: Pillow would keep the lowest 8 or
    16 bits.
    """
    tags: Any = getattr(image, "tag_v2", {})
    bits, sample_format = (
        int(value[0] if isinstance(value, tuple) else value)
        for value in (tags.get(BITS_PER_SAMPLE, 16), tags.get(SAMPLE_FORMAT, 1))
    )
    kind = ""
    if image.mode == "F":
        kind = "floating-point"
    elif sample_format == 2:
        kind = "signed"
    elif bits > 16:
        kind = f"{bits}-bit"
    elif image.mode == "I" and not tags:  # a PGM of 16 bits, or an image made in memory
        low, high = image.getextrema()
        kind = "" if low >= 0 and high <= 65535 else "32-bit"  # type: ignore[operator]  # one band: two numbers
    if kind:
        expected = "expected unsigned pixels of up to 16 bits"
        raise InputError(
            where, f"{expected}, got {kind} pixels whose range is not known; save it as 8-bit"
        )
    return _GreySamples(bits, tags.get(PHOTOMETRIC) == 0)


def _resize(image: Image.Image, rule: ImageRule, where: str) -> Image.Image:
    """Return the image at the rule's size, resampled at most once."""
    height, width = rule.size
    resample = RESAMPLING[rule.interpolation]
    if rule.fit == "stretch":
        return _resize_to(image, (width, height), resample)
    assert rule.shorter_px is not None
    if rule.fit == "torchvision":
        scaled = [rule.shorter_px * side // min(image.size) for side in image.size]
        if scaled[0] * scaled[1] > MAX_PIXELS:  # a very long image of few pixels
            size = f"{scaled[0]} x {scaled[1]} from {image.width} x {image.height}"
            raise InputError(
                where, f"expected at most {MAX_PIXELS} pixels after scaling, got {size}"
            )
        image = _resize_to(image, (scaled[0], scaled[1]), resample)
        # Half a pixel is rounded to the even side, by Python and by torchvision.
        x, y = round((image.width - width) / 2), round((image.height - height) / 2)
        return image.crop((x, y, x + width, y + height))
    # The crop in pixels of the source: its size before the shorter side is scaled to shorter_px.
    scale = rule.shorter_px / min(image.size)
    box_width, box_height = min(width / scale, image.width), min(height / scale, image.height)
    left, top = (image.width - box_width) / 2, (image.height - box_height) / 2
    box = (left, top, min(left + box_width, image.width), min(top + box_height, image.height))
    return image.resize((width, height), resample, box=box)


def _resize_to(
    image: Image.Image, size: tuple[int, int], resample: Image.Resampling
) -> Image.Image:
    return image if image.size == size else image.resize(size, resample)
