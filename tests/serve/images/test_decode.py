"""Decoding images to arrays: every mode and policy, compared with numpy or Pillow's plain
operations.
"""

import io
import os
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from convline.errors import InputError
from convline.images.decode import (
    FORMATS,
    MAX_PIXELS,
    lost_contrast,
    open_part,
    read_image,
    read_size,
    resize_part,
)
from convline.model_file.document import ImageRule
from convline.model_file.schema import INTERPOLATIONS
from PIL import Image, ImageFile, ImageOps

GREY = ImageRule((4, 6), "grey")
RGB = ImageRule((4, 6), "rgb", background=(10, 20, 30))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def test_an_image_of_the_models_size_is_not_resampled() -> None:
    """A lossless file of the rule's size gives its own pixels, whatever the interpolation."""
    for rule, shape in ((GREY, (4, 6, 1)), (RGB, (4, 6, 3))):
        pixels = noise(*shape)
        for source in (
            Image.fromarray(pixels.squeeze()),
            encode(Image.fromarray(pixels.squeeze())),
        ):
            found = read_image(source, rule)
            assert found.dtype == np.uint8 and found.flags.c_contiguous and (found == pixels).all()


def test_paths_and_bytes_agree(tmp_path: Path) -> None:
    """A str, a Path and the bytes of one file give the same pixels."""
    path = tmp_path / "räum \n.png"
    path.write_bytes(encode(Image.fromarray(noise(20, 30, 3))))
    arrays = [read_image(source, RGB) for source in (path, str(path), path.read_bytes())]
    assert (arrays[0] == arrays[1]).all() and (arrays[0] == arrays[2]).all()


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_stretch_is_one_resize(interpolation: str) -> None:
    """The pixels equal those of Pillow's resize to (W, H)."""
    image = Image.fromarray(noise(31, 17, 3))
    rule = ImageRule((4, 6), "rgb", interpolation=interpolation)
    expected = np.asarray(image.resize((6, 4), Image.Resampling[interpolation.upper()]))
    assert (read_image(image, rule) == expected).all()


@pytest.mark.parametrize(("width", "height"), [(40, 20), (20, 40), (20, 20), (33, 21), (5, 3)])
def test_crop_is_the_centre_of_the_scaled_image(width: int, height: int) -> None:
    """A linear ramp: after scaling its shorter side to 10, the crop's centre has the image's centre
    value, and neighbouring columns differ by the ramp's slope divided by the scale.
    """
    slope = 4.0
    ramp = np.tile(slope * np.arange(width), (height, 1)).astype(np.uint8)
    found = read_image(Image.fromarray(ramp), ImageRule((8, 8), "grey", "crop", shorter_px=10))[
        :, :, 0
    ]
    scale = 10 / min(width, height)
    if scale <= 1:  # an enlarged image is flat at its borders
        centre = slope * (width - 1) / 2
        expected = centre + slope / scale * (np.arange(8) - 3.5)
        np.testing.assert_allclose(found, np.tile(expected, (8, 1)), rtol=0, atol=1.5)
    assert found.shape == (8, 8)


def test_crop_without_scaling_cuts_pixels() -> None:
    """The pixels equal a numpy slice."""
    pixels = noise(10, 16, 3)
    found = read_image(Image.fromarray(pixels), ImageRule((6, 8), "rgb", "crop", shorter_px=10))
    assert (found == pixels[2:8, 4:12]).all()


@pytest.mark.parametrize(
    ("size", "scaled", "left", "top"),
    [
        ((50, 37), (21, 16), 6, 4),  # 16 * 50 / 37 = 21.6; (21 - 8) / 2 = 6.5, to the even 6
        ((37, 50), (16, 21), 4, 6),
        ((69, 48), (23, 16), 8, 4),  # (23 - 8) / 2 = 7.5, to the even 8
        ((16, 16), (16, 16), 4, 4),  # no resize
        ((5, 4), (20, 16), 6, 4),
    ],
)
def test_torchvision_scales_then_cuts_whole_pixels(
    size: tuple[int, int], scaled: tuple[int, int], left: int, top: int
) -> None:
    """Sizes and places are computed here; the pixels are those of Pillow's resize and numpy's
    slice.
    """
    image = Image.fromarray(noise(size[1], size[0], 3))
    found = read_image(image, ImageRule((8, 8), "rgb", "torchvision", shorter_px=16))
    assert (
        found
        == np.asarray(image.resize(scaled, Image.Resampling.BILINEAR))[
            top : top + 8, left : left + 8
        ]
    ).all()


def test_torchvision_fit_refuses_very_long_images() -> None:
    """A line of 10^6 pixels scaled to 16 rows would have 16 x 16 * 10^6 pixels.

    With `crop` its centre is taken.
    """
    line = Image.new("L", (1_000_000, 1), 77)
    with pytest.raises(
        InputError, match=r"expected at most 89478485 pixels after scaling, got 16000000 x 16"
    ):
        read_image(line, ImageRule((8, 8), "grey", "torchvision", shorter_px=16))
    assert (read_image(line, ImageRule((8, 8), "grey", "crop", shorter_px=16)) == 77).all()


def smooth(width: int, height: int) -> Image.Image:
    """Return slowly changing colours, as most photos have."""
    x, y = np.meshgrid(np.linspace(0, 3, width), np.linspace(0, 2, height))
    return Image.fromarray(
        np.uint8(127 + 100 * np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1))
    )


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("fit", "shorter_px", "scale"), [("stretch", None, 8), ("crop", 40, 4)])
def test_draft_decodes_fewer_pixels(
    orientation: int, fit: str, shorter_px: int | None, scale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pixels are nearly those of the whole image. libjpeg decodes at 1/8 where 320 x 200
    suffice for 32 x 24, and at 1/4 where the shorter side must have 40 of its 200 pixels. A PNG is
    decoded as a whole.
    """
    photo = Image.Exif()
    photo[0x0112] = orientation
    size = (320, 200)
    data = encode(smooth(*size), "JPEG", quality=95, exif=photo)
    shape = (24, 32) if orientation == 1 else (32, 24)
    rules = [ImageRule(shape, "rgb", fit, shorter_px, draft=draft) for draft in (False, True)]
    whole, draft = (read_image(data, rule).astype(int) for rule in rules)
    assert whole.shape == draft.shape and np.abs(whole - draft).mean() < 2
    decoded, load = [], ImageFile.ImageFile.load
    monkeypatch.setattr(
        ImageFile.ImageFile, "load", lambda self: (decoded.append(self.size), load(self))[1]
    )
    read_image(data, rules[1])
    read_image(encode(smooth(*size)), rules[1])
    assert decoded[0] == (size[0] // scale, size[1] // scale) and decoded[-1] == size


@pytest.mark.parametrize("form", ["TIFF", "JPEG", "PNG"])
@pytest.mark.parametrize(("orientation", "size"), [(1, (9, 6)), (3, (9, 6)), (6, (6, 9))])
def test_the_size_is_that_of_the_upright_image(
    form: str, orientation: int, size: tuple[int, int]
) -> None:
    """From the header alone, as decoding the whole image gives it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.new("L", (9, 6)), form, exif=exif)
    assert read_size(data) == size
    with Image.open(io.BytesIO(data)) as image:
        assert ImageOps.exif_transpose(image).size == size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    """The eight orientations of EXIF 2.3, tag 0x0112, as numpy flips and rotates them."""
    upright = noise(4, 6)
    turns = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
        6: np.rot90(upright, 1), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = encode(Image.fromarray(np.ascontiguousarray(turns[orientation])), exif=exif)
    assert (read_image(stored, GREY)[:, :, 0] == upright).all()


def half_transparent(kind: str) -> Image.Image | bytes:
    """Return 4 x 6 pixels: three opaque columns of grey 90, three transparent ones of grey 200."""
    values = np.tile(np.repeat(np.array([90, 200], np.uint8), 3), (4, 1))
    opaque = np.where(values == 90, 255, 0).astype(np.uint8)
    grey = Image.fromarray(values)
    with_alpha = Image.merge("LA", (grey, Image.fromarray(opaque)))
    if kind == "colour key":
        return encode(grey.convert("RGB"), transparency=(200, 200, 200))
    if kind == "palette entry":
        plain = Image.fromarray((values == 200).astype(np.uint8), "P")
        plain.putpalette([90, 90, 90, 200, 200, 200])
        return encode(plain, transparency=1)
    if kind == "PA":
        return with_alpha.convert("RGBA").convert("PA")  # no file format that Pillow writes has it
    return encode(with_alpha.convert(kind))


@pytest.mark.parametrize("kind", ["RGBA", "LA", "PA", "colour key", "palette entry"])
def test_alpha_is_composited_over_the_background(kind: str) -> None:
    """Alpha 0 shows the background, alpha 255 the pixel."""
    found = read_image(half_transparent(kind), RGB)
    assert (found[:, :3] == 90).all() and (found[:, 3:] == RGB.background).all()


@pytest.mark.parametrize(  # PNG has no colours of fewer than 8 bits
    ("colour", "depth"), [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16)]
)
@pytest.mark.parametrize("how", ["file", "image"])
def test_a_png_s_transparent_value_is_compared_in_the_files_bits(
    depth: int, colour: int, how: str
) -> None:
    """PNG specification (third edition), 11.3.1.1: pixels of the tRNS value are transparent, and
    the chunk's higher bits are masked; all other pixels are opaque. Grey g of n bits is 255 g /
    (2^n - 1), of 16 bits the high byte.
    """
    most = 2**depth - 1
    key, other = 0xC822 if depth == 16 else most - most // 3, most // 3
    values = np.tile(np.repeat([key, other], 3), (4, 1))
    grey = other >> 8 if depth == 16 else 255 * other // most
    unused = 0 if depth == 16 else 1 << depth
    data = png(values, depth, colour, key | unused)
    source = data if how == "file" else Image.open(io.BytesIO(data))
    for _ in range(2):  # an open image is decoded by the first
        found = read_image(source, RGB)
        assert (found[:, :3] == RGB.background).all() and (found[:, 3:] == grey).all()


@pytest.mark.parametrize(("colour", "depth"), [(0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16)])
def test_a_part_has_the_transparent_value_of_the_whole(depth: int, colour: int) -> None:
    key, other = 0xC822 * (2**depth - 1) // 0xFFFF, (2**depth - 1) // 3
    data = png(np.tile(np.repeat([key, other], 3), (4, 1)), depth, colour, key)
    whole = read_image(data, RGB)
    assert (whole[:, :3] == RGB.background).all() and len(np.unique(whole[:, 3:])) == 1
    part = resize_part(*open_part(data, RGB, lambda width, height: (0, 0, width, height)), RGB)
    np.testing.assert_array_equal(part, whole)


def test_sixteen_bit_greys_beside_the_transparent_one_are_opaque() -> None:
    """0x8000 is transparent; 0x8001 has the same high byte and is opaque."""
    values = np.tile(np.repeat([0x8000, 0x8001], 3), (4, 1))
    found = read_image(png(values, 16, 0, 0x8000), RGB)
    assert (found[:, :3] == RGB.background).all() and (found[:, 3:] == 0x80).all()


def png(values: np.ndarray, depth: int, colour: int, key: int) -> bytes:
    """Return a PNG of grey (colour 0) or RGB (2) samples with a transparent value; Pillow writes
    few of these.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    channels = 3 if colour == 2 else 1
    rows = []
    for row in np.repeat(values, channels, axis=1):
        bits = "".join(f"{value:0{depth}b}" for value in row)
        rows.append(
            b"\0"
            + int(bits.ljust(-8 * (-len(bits) // 8), "0"), 2).to_bytes(-(-len(bits) // 8), "big")
        )
    header = struct.pack(">IIBBBBB", values.shape[1], len(values), depth, colour, 0, 0, 0)
    parts = [
        (b"IHDR", header),
        (b"tRNS", struct.pack(">H", key) * channels),
        (b"IDAT", zlib.compress(b"".join(rows))),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in [*parts, (b"IEND", b"")])


def test_half_transparent_white_over_black_is_128() -> None:
    """128/255 of 255 over black, rounded, is 128."""
    image = Image.new("LA", (6, 4), (255, 128))
    assert (read_image(image, ImageRule((4, 6), "grey")) == 128).all()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_keeps_the_high_byte(form: str) -> None:
    """value // 256; Pillow's own conversion would clip all of these to 255."""
    values = np.random.default_rng(3).integers(0, 65536, (4, 6), dtype=np.uint16)
    found = read_image(encode(Image.fromarray(values), form), GREY)
    assert (found[:, :, 0] == values >> 8).all()


def test_white_and_black_stay_so_in_other_modes() -> None:
    """1-bit, CMYK JPEG, YCbCr, HSV and 32-bit files."""
    for white, mode in (
        ((0, 0, 0, 0), "CMYK"),
        (1, "1"),
        ((255, 128, 128), "YCbCr"),
        ((0, 0, 255), "HSV"),
    ):
        assert (read_image(Image.new(mode, (9, 9), white), RGB) >= 254).all(), mode
    assert (read_image(encode(Image.new("CMYK", (9, 9), 0), "JPEG"), RGB) >= 253).all()
    for image, kind in (
        (Image.new("I", (6, 4), 1 << 20), "32-bit"),
        (Image.new("F", (6, 4), 0.5), "floating-point"),
    ):
        with pytest.raises(
            InputError,
            match=f"unsigned pixels of up to 16 bits, got {kind} pixels whose range is not",
        ):
            read_image(image, GREY)


def tiff(samples: bytes, bits: int, form: int = 1, photometric: int = 1) -> bytes:
    """Return an uncompressed grey TIFF of 8 x 8 samples with the given tags; Pillow writes few of
    these.
    """
    shorts = {258: bits, 259: 1, 262: photometric, 277: 1, 339: form}
    tags = {256: 8, 257: 8, 273: 8, 278: 8, 279: len(samples)} | shorts
    entries = b"".join(
        struct.pack("<HHI", tag, 3 if tag in shorts else 4, 1) + struct.pack("<I", value)
        for tag, value in sorted(tags.items())
    )
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(samples)) + samples + directory


def test_tiffs_are_read_as_their_tags_say() -> None:
    """TIFF 6.0: BitsPerSample, PhotometricInterpretation 0 (white is zero) and SampleFormat.

    Once 12 bits were read as 16, which is black, and 16 bits of white-is-zero as their negative.
    """
    values = np.arange(64) * 64
    pairs = values.reshape(-1, 2)
    packed = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs.tolist())
    rule = ImageRule((8, 8), "grey")
    assert read_image(tiff(packed, 12), rule).ravel().tolist() == (values >> 4).tolist()
    deep = (values * 16).astype("<u2")
    assert read_image(tiff(deep.tobytes(), 16), rule).ravel().tolist() == (deep >> 8).tolist()
    inverted = read_image(tiff(deep.tobytes(), 16, photometric=0), rule).ravel().tolist()
    assert inverted == (255 - (deep >> 8)).tolist()
    plain = np.arange(64, dtype=np.uint8)
    assert (
        read_image(tiff(plain.tobytes(), 8, photometric=0), rule).ravel().tolist()
        == (255 - plain).tolist()
    )


@pytest.mark.parametrize(
    ("dtype", "form", "kind"),
    [("<i2", 2, "signed"), ("<i4", 2, "signed"), ("i1", 2, "signed"), ("<u4", 1, "32-bit")],
)
def test_tiffs_of_unknown_range_are_refused(dtype: str, form: int, kind: str) -> None:
    """32-bit integers are refused as floats are; values of 0 to 255 in 32 bits were once read as
    black.
    """
    values = np.arange(64).astype(dtype)
    with pytest.raises(
        InputError, match=f"got {kind} pixels whose range is not known; save it as 8-bit"
    ):
        read_image(tiff(values.tobytes(), 8 * values.dtype.itemsize, form), GREY)


def test_grey_is_luma_601() -> None:
    """L = (299 R + 587 G + 114 B) / 1000 (ITU-R 601-2)."""
    pixels = noise(4, 6, 3)
    expected = pixels @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(
        read_image(Image.fromarray(pixels), GREY)[:, :, 0], expected, rtol=0, atol=1
    )


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_animations_give_the_first_frame(form: str) -> None:
    """The first frame is white, the others are black."""
    frames = [Image.new("L", (6, 4), value) for value in (255, 0, 0)]
    data = encode(frames[0], form, save_all=True, append_images=frames[1:])
    assert (read_image(data, GREY) == 255).all()


def test_ico_files_of_any_size_are_read() -> None:
    """Noise of 150 x 150 RGBA is a PNG of 90 kB within the ICO, whose bytes 16 and 17 then look
    like those of a TGA.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (150, 150, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    data = encode(Image.fromarray(pixels), "ICO", sizes=[(150, 150)])
    assert 2**16 <= int.from_bytes(data[14:18], "little") < 2**17
    assert (read_image(data, ImageRule((150, 150), "rgb")) == pixels[..., :3]).all()


@pytest.mark.parametrize("identifier", [*range(20), 40, 108, 124, 255])
def test_tga_files_with_any_identifier_are_read(identifier: int) -> None:
    """The first byte of a TGA is the length of its identifier: with 10 it begins like a PCX."""
    pixels = noise(4, 6, 3)
    data = encode(Image.fromarray(pixels), "TGA", id_section=b"x" * identifier)
    assert (read_image(data, RGB) == pixels).all()


@pytest.mark.parametrize(
    "form", ["BMP", "DIB", "ICO", "PCX", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP", "AVIF"]
)
def test_every_format_is_distinguished_from_the_others(form: str) -> None:
    """Images of four sizes keep their pixels; a format that takes the bytes of another one gives
    others, or an error.
    """
    for side in (1, 32, 64, 256):
        pixels = noise(side, side, 3, seed=side)
        options: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
        options |= {"sizes": [(side, side)]} if form == "ICO" else {}
        found = read_image(
            encode(Image.fromarray(pixels), form, **options), ImageRule((side, side), "rgb")
        )
        if form == "AVIF":
            assert (
                np.abs(found.astype(int) - pixels).mean() < 60
            )  # the codec has losses, of noise above all
        else:
            assert (found == pixels).all()


def test_the_documented_formats_are_those_that_are_read() -> None:
    """docs/serving.md names each format of the code with its suffixes, and no other one."""
    page = (Path(__file__).parents[3] / "docs" / "serving.md").read_text(encoding="utf-8")
    table = page.split("| format | suffixes |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| ([\w ]+) \| (.*) \|$", table, re.M)
    told = {
        name.replace(" ", ""): tuple(re.findall(r"`(\.\w+)`", suffixes)) for name, suffixes in rows
    }
    assert told == FORMATS


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "got zero bytes"),
        (b"hello, this is text", "no known image format"),
        (encode(Image.fromarray(noise(64, 64, 3)))[:3000], "cannot be decoded"),
        (encode(Image.fromarray(noise(64, 64, 3)), "JPEG")[:900], "cannot be decoded"),
        (tiny.bomb_png(30_000, 30_000), "decompression bomb|pixels"),
        (tiny.bomb_png(MAX_PIXELS // 9_000, 9_010), "decompression bomb|pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "no known image format"),
    ],
    ids=["empty", "text", "png-cut", "jpeg-cut", "bomb", "small-bomb", "postscript"],
)
def test_damaged_files_are_errors_with_a_reason(data: bytes, reason: str) -> None:
    """Each file is damaged in one known way. EPS would start another program and is not read."""
    with pytest.raises(InputError, match=reason) as caught:
        read_image(data, RGB)
    assert "\n" not in caught.value.reason


def test_every_truncation_of_a_file_is_an_input_error() -> None:
    """Whatever the decoders raise, only InputError is raised."""
    for form in (
        "PNG",
        "JPEG",
        "GIF",
        "BMP",
        "TIFF",
        "WEBP",
        "TGA",
        "PPM",
        "ICO",
        "JPEG2000",
        "QOI",
        "PCX",
        "SGI",
    ):
        data = encode(Image.fromarray(noise(8, 8, 3)), form)
        for stop in range(1, len(data), max(len(data) // 25, 1)):
            try:
                assert read_image(data[:stop], RGB).shape == (4, 6, 3)
            except InputError as error:
                assert error.reason


def test_noise_in_a_file_is_an_image_or_an_input_error() -> None:
    """40 random bytes of each file are overwritten; no other exception and no crash."""
    generator = np.random.default_rng(5)
    for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "PSD"):
        if form == "PSD":
            data = b"8BPS\0\1" + generator.bytes(200)
        else:
            data = encode(Image.fromarray(noise(16, 16, 3)), form)
        for _ in range(15):
            broken = bytearray(data)
            for place in generator.integers(0, len(data), 40):
                broken[place] = generator.integers(256)
            try:
                read_image(bytes(broken), RGB)
            except InputError as error:
                assert error.reason


def test_bad_paths_are_errors_with_a_reason(tmp_path: Path) -> None:
    """Missing, a folder, a pipe (reading it would hang), a NUL in the name."""
    os.mkfifo(tmp_path / "pipe.png")
    cases = (
        (tmp_path / "none.png", "no such file"),
        (tmp_path, "a folder"),
        (tmp_path / "pipe.png", "pipe"),
    )
    for path, reason in (*cases, ("a\0b.png", "cannot be opened")):
        with pytest.raises(InputError, match=reason):
            read_image(path, RGB)


def test_image_rules_are_read_back_and_contradictions_refused() -> None:
    """`from_dict` gives the rule of `to_dict`.

    Options that contradict each other are refused with their values.
    """
    crops = [
        ImageRule((224, 200), "rgb", fit, 256, "lanczos", (1, 2, 3))
        for fit in ("crop", "torchvision")
    ]
    for rule in (GREY, RGB, *crops):
        assert ImageRule.from_dict(rule.to_dict()) == rule
    for options in (
        {"colour": "cmyk"},
        {"fit": "pad"},
        {"interpolation": "area"},
        {"fit": "crop"},
        {"shorter_px": 9},
        {"fit": "torchvision"},
        {"fit": "torchvision", "shorter_px": 9, "draft": True},
    ):
        with pytest.raises(ValueError, match=r"ImageRule\.\w+: expected .*, got "):
            ImageRule(**({"size": (8, 8), "colour": "grey"} | options))


@pytest.mark.parametrize("ground", ["twelve bits", "drawing"])
def test_lost_contrast_is_detected(tmp_path: Path, ground: str) -> None:
    """12 bits in a PNG of 16 keep 4 bits; a black drawing on transparent ground over black is all
    black.
    """
    path = tmp_path / "picture.png"
    if ground == "twelve bits":
        Image.fromarray(np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)).save(path)
    else:
        alpha = np.zeros((8, 8, 4), np.uint8)
        alpha[2:6, 2:6, 3] = 255
        Image.fromarray(alpha).save(path)
    rule = ImageRule((8, 8), "grey")
    assert lost_contrast(path, read_image(path, rule))
    Image.new("L", (8, 8), 7).save(path)  # of one grey itself
    assert not lost_contrast(path, read_image(path, rule))
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
    assert not lost_contrast(path, read_image(path, rule))
